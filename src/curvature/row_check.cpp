#include "hesspect/curvature/row_check.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "local_loss.h"
#include "output_loss.h"
#include "parameter_changes.h"

namespace hesspect {
namespace {

constexpr std::int64_t kUnits = 8;     // units tried together
constexpr std::int64_t kFewUnits = 4;  // where outputs are large: a part is then never a single one
constexpr std::int64_t kLargeOutputs_bytes = std::int64_t{32} << 20;  // of kUnits
constexpr std::int64_t kMostRows = 256;  // rows tried together, where that is two units at least
constexpr double kOverNoise = 256;       // deviations up to this multiple of the measured rounding are rounding
constexpr double kOverEpsilon = 64;      // and so are those up to this multiple of ε times the largest entry
constexpr std::int64_t kPiece = std::int64_t{1} << 20;  // entries that are compared at once
constexpr int kNoiseDraws = 3;
constexpr std::size_t kMostSplits = 4;

using Units = std::vector<std::int64_t>;  // positions among the units that were read

double epsilon_of(at::ScalarType type) {
  switch (type) {
    case at::kBFloat16: return 7.8e-3;
    case at::kHalf: return 9.8e-4;
    case at::kFloat: return std::numeric_limits<float>::epsilon();
    default: return std::numeric_limits<double>::epsilon();
  }
}

Units reversed(Units units) {
  std::reverse(units.begin(), units.end());
  return units;
}

Units joined(Units a, const Units& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// `count` of the units from place `from` on, around and around.
Units cycled(const Units& units, std::size_t from, std::size_t count) {
  Units some;
  for (std::size_t i = 0; i < count; ++i) some.push_back(units[(from + i) % units.size()]);
  return some;
}

/// The units in an order that parts neighbours, and pairs of pairs: every third, or the next step that reaches all.
Units scattered(const Units& units) {
  const auto count = static_cast<std::int64_t>(units.size());
  std::int64_t step = 3;
  while (std::gcd(step, count) != 1) ++step;
  Units order;
  for (std::int64_t i = 0; i < count; ++i) order.push_back(units[static_cast<std::size_t>(i * step % count)]);
  return order;
}

/// Keeps a copy of the program's parameters and sets them back at the end. Works tensor by tensor: a large model leaves
/// no room for more than that one copy.
class KeptParameters final : public ParameterChanges {
 public:
  explicit KeptParameters(Program& program)
      : flat_(program.flat_parameters()),
        tensors_(program.layout().views(flat_)),
        kept_(flat_.to(at::kCPU, false, /*copy=*/true)) {}
  ~KeptParameters() override { flat_.copy_(kept_); }
  KeptParameters(const KeptParameters&) = delete;
  KeptParameters& operator=(const KeptParameters&) = delete;

  void move_away() override {
    moved_ = true;
    set();
  }
  void round(double epsilon, int draw) override {
    for (std::size_t p = 0; p < tensors_.size(); ++p) changes::round(tensors_[p], p, epsilon, draw);
  }
  void set() override {
    flat_.copy_(kept_);
    for (std::size_t p = 0; moved_ && p < tensors_.size(); ++p) changes::move_away(tensors_[p], p);
  }

 private:
  at::Tensor flat_;
  std::vector<at::Tensor> tensors_;  // its views
  at::Tensor kept_;
  bool moved_ = false;
};

class Trial {
 public:
  Trial(Program& program, DataShard shard, std::int64_t unit_rows, const LossOptions& loss, int output_index)
      : program_(program), shard_(std::move(shard)), unit_rows_(unit_rows), loss_(loss), output_index_(output_index) {}

  /// The output that the loss takes: [units, entries of a unit's rows], on the CPU.
  at::Tensor outputs(const Units& units) const {
    const LocalLoss local(program_, select(units), loss_, output_index_);
    return local.output(local.unchecked_batch({0, local.rows()}))
        .to(at::kCPU)
        .reshape({static_cast<std::int64_t>(units.size()), -1});
  }

  /// The loss's sum and its count, of a loss that the program computes.
  struct Sum {
    double sum = 0, count = 0;
  };
  Sum sum(const Units& units) const { return sum_as(units, loss_); }
  Sum sum_as(const Units& units, const LossOptions& options) const {
    const LocalLoss local(program_, select(units), options, output_index_);
    const LossSum loss = local.loss(local.unchecked_batch({0, local.rows()}));
    return {loss.sum.item<double>(), loss.count};
  }

  void round_inputs(double epsilon) {
    exact_ = shard_.inputs;
    for (at::Tensor& input : shard_.inputs)
      if (at::isFloatingType(input.scalar_type())) input = input.to(at::kDouble) * (1 + epsilon);
  }
  void unround_inputs() { shard_.inputs = exact_; }

  const LossOptions& loss() const { return loss_; }
  Program& program() const { return program_; }
  std::int64_t unit_rows() const { return unit_rows_; }

 private:
  DataShard select(const Units& units) const {
    const std::vector<std::int64_t> rows = rows_of_units(units, unit_rows_);
    const at::Tensor index = at::tensor(rows, at::kLong);
    DataShard some;
    for (const at::Tensor& input : shard_.inputs) some.inputs.push_back(input.index_select(0, index));
    if (shard_.target.defined()) some.target = shard_.target.index_select(0, index);
    some.rows = {0, static_cast<std::int64_t>(rows.size())};
    some.global_rows = some.rows.end;
    return some;
  }

  Program& program_;
  DataShard shard_;
  std::int64_t unit_rows_;
  LossOptions loss_;
  int output_index_;
  std::vector<at::Tensor> exact_;
};

class Checker {
 public:
  /// @param output_row_bytes  of a row of the output
  Checker(Program& program, const ArrayFile& file, const DatasetSpec& spec, const LossOptions& loss, int output_index,
          std::int64_t output_row_bytes)
      : output_row_bytes_(output_row_bytes),
        numbers_(diverse_units(file, spec, 2 * kUnits)),
        shard_(load_rows(file, spec, rows_of_units(numbers_, spec.unit_rows))),
        trial_(program, shard_, spec.unit_rows, loss, output_index),
        output_index_(output_index),
        units_(count_rows(file, spec) / spec.unit_rows),
        epsilon_(std::max(epsilon_of(program.options().dtype), epsilon_of(program.narrowest_type()))) {}

  RowCheck run(ParameterChanges& parameters) {
    RowCheck check;
    if (units_ < 2 || !choose_sizes()) {
      check.applies = false;
      return check;
    }
    for (const bool moved : {false, true}) {
      if (moved) parameters.move_away();
      const Found found =
          at_some_granularity([&] { return is_sum() ? try_sums(parameters) : try_outputs(parameters); });
      if (!found.finite) continue;  // at its own parameters the run itself will say so
      if (!(found.deviation > check.deviation)) continue;
      check.deviation = found.deviation;
      check.finding = found.text;
    }
    check.passed = check.deviation <= 1;
    if (check.passed) {
      check.finding.clear();
    } else {
      check.advice = is_sum() ? advice_for_sums() : advice_for_outputs();
    }
    return check;
  }

 private:
  struct Found {
    bool finite = true;
    double deviation = 0;  // over the tolerance
    std::string text;
  };

  bool is_sum() const {
    return trial_.loss().kind == LossKind::kOutput && !is_per_row_output(trial_.program(), output_index_);
  }

  /// @return false where the program takes one unit at a time
  bool choose_sizes() {
    const std::int64_t unit = trial_.unit_rows();
    const auto fixed = trial_.program().static_batch();
    const auto in_units = [unit](std::int64_t rows) { return std::max<std::int64_t>(1, (rows + unit - 1) / unit); };
    const std::int64_t fewest = in_units(trial_.program().fewest_rows());
    const auto most_rows = trial_.program().most_rows();
    const std::int64_t most = fixed ? *fixed / unit : most_rows ? *most_rows / unit : 2 * std::max(kUnits, fewest);
    // Of little data as many as there are, but four: a part is then never a single one, which many models treat apart.
    const std::int64_t there = std::max(kFewUnits, static_cast<std::int64_t>(numbers_.size()));
    const std::int64_t enough = kUnits * unit * output_row_bytes_ > kLargeOutputs_bytes ? kFewUnits : kUnits;
    const std::int64_t few = std::clamp<std::int64_t>(std::min(kMostRows / unit, there), 2, enough);
    size_ = fixed ? most : std::min(most, std::max(few, 2 * fewest));
    if (size_ < 2 || (fixed && *fixed % unit != 0)) return false;
    fixed_ = fixed.has_value() || size_ < 2 * fewest;
    least_ = fewest;
    return true;
  }

  Units diverse() const {
    Units units;
    for (std::size_t i = 0; i < numbers_.size(); ++i) units.push_back(static_cast<std::int64_t>(i));
    return units;
  }

  /// Some programs take even numbers of rows only, or multiples of four: they are tried on such numbers.
  template <class Try>
  Found at_some_granularity(Try&& attempt) {
    for (;; granularity_ *= 2) {
      try {
        return attempt();
      } catch (const InputError&) {
        if (fixed_ || granularity_ >= size_ / 2) throw;
      }
    }
  }

  /// Cuts `order` in two: 3 of 8, two of fewer, or as many as the program needs.
  std::pair<Units, Units> cut(const Units& order) const {
    const std::int64_t share = size_ < 4 ? 1 : std::max<std::int64_t>(2, size_ * 3 / 8);
    const std::int64_t wanted = std::max(granularity_, share / granularity_ * granularity_);
    const auto small = std::clamp(wanted, least_, size_ - least_);
    const auto middle = order.begin() + static_cast<std::ptrdiff_t>(small);
    return {Units(order.begin(), middle), Units(middle, order.end())};
  }

  /// The units ordered by each feature that parts them most: the short ones before the long ones, class by class.
  std::vector<Units> orders_by_feature(const Units& all) const {
    const auto count = static_cast<std::int64_t>(numbers_.size());
    const at::Tensor features = row_features(shard_).reshape({count, trial_.unit_rows(), -1}).mean(1);
    const at::Tensor chosen = features.index_select(0, at::tensor(all, at::kLong));
    const at::Tensor spread = chosen.var(0, /*unbiased=*/false);
    const at::Tensor by_spread = spread.argsort(/*dim=*/0, /*descending=*/true);
    std::vector<Units> orders;
    for (std::int64_t i = 0; i < by_spread.size(0) && orders.size() < kMostSplits; ++i) {
      const std::int64_t column = by_spread[i].item<std::int64_t>();
      if (!(spread[column].item<double>() > 0)) break;
      const at::Tensor ascending = chosen.select(1, column).argsort();
      Units order;
      for (std::int64_t k = 0; k < ascending.size(0); ++k)
        order.push_back(all[static_cast<std::size_t>(ascending[k].item<std::int64_t>())]);
      if (std::ranges::find(orders, order) == orders.end()) orders.push_back(std::move(order));
    }
    orders.push_back(scattered(all));
    return orders;
  }

  /// The largest of some changes, each seen where every parameter and input is changed by a rounding.
  template <class Change>
  double noise_of(ParameterChanges& parameters, Change&& change) {
    double noise = 0;
    for (int i = 0; i < kNoiseDraws; ++i) {
      parameters.round(epsilon_, i);
      trial_.round_inputs(epsilon_);
      noise = std::max(noise, change());
      trial_.unround_inputs();
      parameters.set();
    }
    return noise;
  }

  // --- outputs that each belong to a row ---------------------------------------------------------------------------

  Found try_outputs(ParameterChanges& parameters) {
    const Units units = diverse();
    const auto half = static_cast<std::size_t>(size_ / 2), whole = static_cast<std::size_t>(size_);
    std::vector<Units> others;
    Units all;
    if (fixed_) {
      // The same half among others, elsewhere in the batch and in another order.
      const std::size_t third = std::max<std::size_t>(1, units.size() / 3);
      const Units kept = cycled(cycled(units, 0, third), 0, half);
      all = joined(kept, cycled(cycled(units, third, third), 0, whole - half));
      others.push_back(joined(cycled(cycled(units, 2 * third, third), 0, whole - half), reversed(kept)));
    } else {
      all = cycled(units, 0, whole);
      for (const Units& order : {scattered(all), reversed(all)}) {
        const auto [a, b] = cut(order);
        others.push_back(a);
        others.push_back(b);
      }
    }
    const at::Tensor base = trial_.outputs(all);
    const double scale = largest_finite(base);
    if (!(scale < std::numeric_limits<double>::infinity())) return {false, 0, ""};
    std::vector<std::vector<double>> changes;  // of each unit of each other batch; of units only there 0
    double largest = 0, tolerance = kOverEpsilon * epsilon_ * scale;
    for (const Units& other : others) {
      const at::Tensor outputs = trial_.outputs(other);
      std::vector<double>& of_units = changes.emplace_back();
      for (std::size_t i = 0; i < other.size(); ++i) {
        const auto place = std::ranges::find(all, other[i]);
        of_units.push_back(
            place == all.end() ? 0 : difference(outputs[static_cast<std::int64_t>(i)], base[place - all.begin()]));
        largest = std::max(largest, of_units.back());
      }
    }
    if (largest > tolerance)  // only then is it asked how much rounding explains
      tolerance =
          std::max(tolerance, kOverNoise * noise_of(parameters, [&] { return difference(trial_.outputs(all), base); }));
    Found worst;
    for (std::size_t o = 0; o < others.size(); ++o) {
      for (std::size_t i = 0; i < others[o].size(); ++i) {
        const double change = changes[o][i];
        const double deviation = change == 0 ? 0 : change / tolerance;
        if (deviation > worst.deviation)
          worst = {true, deviation,
                   name_of_output(trial_.program(), output_index_) + " of " + rows_text({others[o][i]}) +
                       " changes by " + format_number(change) + " (its entries are up to " + format_number(scale) +
                       ", and rounding explains " + format_number(tolerance) + ") when other rows stand beside it"};
      }
    }
    return worst;
  }

  /// The largest |a − b|; entries that are infinite or NaN in the same way are equal.
  static double difference(const at::Tensor& a, const at::Tensor& b) {
    return largest_of_pieces(a.numel(), [&](std::int64_t begin, std::int64_t length) {
      const auto piece = [&](const at::Tensor& t) { return t.reshape({-1}).narrow(0, begin, length); };
      // Where all entries are finite, as nearly always, in their own type, which is several times as fast.
      const auto own = a.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      const double plain = (piece(a).to(own) - piece(b).to(own)).abs_().amax().to(at::kDouble).item<double>();
      if (std::isfinite(plain)) return plain;
      const at::Tensor x = a.reshape({-1}).narrow(0, begin, length).to(at::kDouble);
      const at::Tensor y = b.reshape({-1}).narrow(0, begin, length).to(at::kDouble);
      const at::Tensor same = x.eq(y).logical_or(x.isnan().logical_and(y.isnan()));
      return (x - y).abs().masked_fill(same, 0).nan_to_num(HUGE_VAL).amax().item<double>();
    });
  }
  /// The largest |a| that is not infinite; infinite where an entry is NaN.
  static double largest_finite(const at::Tensor& a) {
    return largest_of_pieces(a.numel(), [&](std::int64_t begin, std::int64_t length) {
      const at::Tensor x = a.reshape({-1}).narrow(0, begin, length).abs();
      const double plain = x.amax().to(at::kDouble).item<double>();
      if (std::isfinite(plain)) return plain;
      return x.masked_fill(x.isinf(), 0).amax().to(at::kDouble).nan_to_num(HUGE_VAL).item<double>();
    });
  }
  /// Outputs may be the largest arrays there are: they are looked at a piece at a time.
  template <class Find>
  static double largest_of_pieces(std::int64_t count, Find&& find) {
    double largest = 0;
    for (std::int64_t begin = 0; begin < count; begin += kPiece)
      largest = std::max(largest, find(begin, std::min(kPiece, count - begin)));
    return largest;
  }

  // --- a loss that the program computes -----------------------------------------------------------------------------

  using Sum = Trial::Sum;

  Found try_sums(ParameterChanges& parameters) {
    if (fixed_) return try_sums_of_fixed_batch(parameters);
    const Units all = cycled(diverse(), 0, static_cast<std::size_t>(size_));
    const Sum whole = trial_.sum(all);
    if (!std::isfinite(whole.sum)) return {false, 0, ""};
    const double noise = sum_noise(parameters, all, whole);
    Found worst;
    for (const Units& order : orders_by_feature(all)) {
      const auto [a, b] = cut(order);
      const Sum part = trial_.sum(a), rest = trial_.sum(b);
      if (!std::isfinite(part.sum + rest.sum)) return {false, 0, ""};
      const double excess = excess_of(whole.sum, part.sum + rest.sum, std::abs(part.sum) + std::abs(rest.sum), noise);
      const double miscount = excess_of(whole.count, part.count + rest.count, whole.count, 0);
      if (!(std::max(excess, miscount) > worst.deviation)) continue;
      cut_ = {a, b};
      worst = {true, std::max(excess, miscount), describe(all, whole, a, part, b, rest, miscount > excess)};
    }
    return worst;
  }

  /// f(A₁A₂) + f(B₁B₂) = f(A₁B₂) + f(B₁A₂) for sums over rows, at one size of batch.
  Found try_sums_of_fixed_batch(ParameterChanges& parameters) {
    const Units units = diverse();
    const auto half = static_cast<std::size_t>(size_ / 2), rest = static_cast<std::size_t>(size_) - half;
    Found worst;
    for (const Units& order : orders_by_feature(units)) {
      const std::size_t middle = order.size() / 2;
      const Units low = cycled(order, 0, middle), high = cycled(order, middle, order.size() - middle);
      const Units a1 = cycled(low, 0, half), a2 = cycled(high, 0, rest);
      const Units b1 = cycled(high, 0, half), b2 = cycled(low, 0, rest);
      const Sum a = trial_.sum(joined(a1, a2)), b = trial_.sum(joined(b1, b2));
      const Sum c = trial_.sum(joined(a1, b2)), d = trial_.sum(joined(b1, a2));
      if (!std::isfinite(a.sum + b.sum + c.sum + d.sum)) return {false, 0, ""};
      const double noise = sum_noise(parameters, joined(a1, a2), a);
      const double size = std::abs(a.sum) + std::abs(b.sum);
      const double excess = std::max(excess_of(a.sum + b.sum, c.sum + d.sum, size, noise),
                                     excess_of(a.count + b.count, c.count + d.count, a.count + b.count, 0));
      if (!(excess > worst.deviation)) continue;
      worst = {true, excess,
               name_of_output(trial_.program(), output_index_) +
                   " is no mean over the rows of a batch: times its count it adds up to " +
                   format_number(a.sum + b.sum) + " over two batches, and to " + format_number(c.sum + d.sum) +
                   " when these exchange half of their rows"};
    }
    return worst;
  }

  double sum_noise(ParameterChanges& parameters, const Units& all, const Sum& whole) {
    return noise_of(parameters, [&] { return std::abs(trial_.sum(all).sum - whole.sum); });
  }

  /// |a − b| over the tolerance.
  double excess_of(double a, double b, double size, double noise) const {
    const double difference = std::abs(a - b);
    if (difference == 0) return 0;
    if (!std::isfinite(difference)) return HUGE_VAL;
    return difference / std::max(kOverNoise * noise, kOverEpsilon * epsilon_ * size);
  }

  std::string describe(const Units& all, const Sum& whole, const Units& a, const Sum& part, const Units& b,
                       const Sum& rest, bool counts) const {
    const std::string name = name_of_output(trial_.program(), output_index_);
    if (counts)
      return "the count of " + rows_text(all) + " is " + format_number(whole.count) + ", but that of " + rows_text(a) +
             " " + format_number(part.count) + " and of " + rows_text(b) + " " + format_number(rest.count);
    const bool mean = trial_.loss().reduction == Reduction::kMean;
    const bool counted = trial_.loss().count_output >= 0;
    const auto value = [&](const Sum& s) { return format_number(mean ? s.sum / s.count : s.sum); };
    return name + " is no " + (mean ? "mean" : "sum") + " over " + (counted ? "what it counts" : "rows") + ": of " +
           rows_text(all) + " it is " + value(whole) + ", but of " + rows_text(a) + " " + value(part) + " and of " +
           rows_text(b) + " " + value(rest) + ", which makes " +
           format_number(mean ? (part.sum + rest.sum) / (part.count + rest.count) : part.sum + rest.sum);
  }

  /// "rows 3, 17 and 20"
  std::string rows_text(const Units& units) const {
    const bool alone = trial_.unit_rows() == 1;
    std::string text = std::string(alone ? "row" : "unit") + (units.size() == 1 ? " " : "s ");
    for (std::size_t i = 0; i < units.size(); ++i) {
      if (i > 0) text += i + 1 == units.size() ? " and " : ", ";
      text += std::to_string(numbers_[static_cast<std::size_t>(units[i])]);
    }
    return text;
  }

  // --- what to do ---------------------------------------------------------------------------------------------------

  std::string advice_for_outputs() const {
    return "if it has a batch norm or the like in train mode, export after model.eval(); if rows belong together "
           "(pairs, contrastive batches, graphs, packed sequences), --unit-rows B takes them in units of B, and "
           "--unit-rows all all at once; if the rows lie along another dimension, --batch-dim NAME=D says so; "
           "--assume-sum-over-rows goes on all the same";
  }

  std::string advice_for_sums() {
    std::string fits;
    if (const auto reduction = other_reduction()) fits = *reduction + "; otherwise, ";
    if (const auto count = fitting_count()) fits = *count + "; otherwise, ";
    return fits +
           "if it is a mean over unpadded tokens or by weights, let the model give their number or the sum of weights "
           "as a second output and name it with --count-output, or let it give one loss a row; if it is a sum, "
           "--reduction sum; if rows belong together, --unit-rows B takes them in units of B, and --unit-rows all all "
           "at once; --assume-sum-over-rows goes on all the same";
  }

  /// The same output as a sum where it was taken for a mean, or the other way about.
  std::optional<std::string> other_reduction() {
    if (cut_.first.empty()) return std::nullopt;
    const bool mean = trial_.loss().reduction == Reduction::kMean;
    if (!adds_up(mean ? Reduction::kSum : Reduction::kMean, trial_.loss().count_output)) return std::nullopt;
    return mean ? "it is a sum over rows: --reduction sum" : "it is a mean over rows: leave --reduction sum out";
  }

  std::optional<std::string> fitting_count() {
    if (cut_.first.empty()) return std::nullopt;
    const auto& outputs = trial_.program().outputs();
    for (int i = 0; i < static_cast<int>(outputs.size()); ++i) {
      if (i == output_index_ || !outputs[static_cast<std::size_t>(i)].is_tensor) continue;
      try {
        if (adds_up(Reduction::kMean, i))
          return name_of_output(trial_.program(), i) + " fits as its count: --count-output " + std::to_string(i);
      } catch (const std::exception&) {  // no count: of another shape, or negative
      }
    }
    return std::nullopt;
  }

  bool adds_up(Reduction reduction, int count_output) {
    LossOptions options = trial_.loss();
    options.reduction = reduction;
    options.count_output = count_output;
    const auto sum = [&](const Units& units) { return trial_.sum_as(units, options); };
    const Sum whole = sum(joined(cut_.first, cut_.second)), part = sum(cut_.first), rest = sum(cut_.second);
    constexpr double kRelative = 1e-4;  // a hint, not a verdict
    return std::abs(whole.sum - part.sum - rest.sum) <= kRelative * (std::abs(part.sum) + std::abs(rest.sum)) &&
           std::abs(whole.count - part.count - rest.count) <= kRelative * whole.count && whole.count > 0;
  }

  std::int64_t output_row_bytes_;
  std::vector<std::int64_t> numbers_;  // in the data, of the units that were read
  DataShard shard_;
  Trial trial_;
  int output_index_;
  std::int64_t units_;  // in the data
  double epsilon_;
  std::int64_t size_ = 0;         // units of a batch
  std::int64_t least_ = 1;        // units that the program takes at least
  bool fixed_ = false;            // the batch can't be made smaller
  std::int64_t granularity_ = 1;  // in units: the sizes of parts are its multiples
  std::pair<Units, Units> cut_;   // which showed the largest deviation
};

}  // namespace

RowCheck check_rows(Program& program, const ArrayFile& file, const DatasetSpec& spec, const LossOptions& loss,
                    int output_index, ParameterChanges* changes) {
  std::int64_t output_row_bytes = 0;
  {
    at::AutoGradMode grad(true);
    std::vector<std::int64_t> rows;  // what does not fit at all has messages of its own
    const std::int64_t few = program.static_batch().value_or(std::max<std::int64_t>(2, program.fewest_rows()));
    for (std::int64_t r = 0; r < std::min(few, count_rows(file, spec)); ++r) rows.push_back(r);
    LocalLoss local(program, load_rows(file, spec, rows), loss, output_index);
    const std::int64_t bytes =
        changes == nullptr ? local.check(/*derivatives=*/false)
                           : static_cast<std::int64_t>(local.output(local.unchecked_batch({0, local.rows()})).nbytes());
    output_row_bytes = bytes / std::max<std::int64_t>(1, local.rows());
  }
  at::NoGradGuard no_grad;
  Checker checker(program, file, spec, loss, output_index, output_row_bytes);
  if (changes != nullptr) return checker.run(*changes);
  KeptParameters parameters(program);
  return checker.run(parameters);
}

}  // namespace hesspect
