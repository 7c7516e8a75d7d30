// Layer and RMS norm.
#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "../registry.h"
#include "../stacked.h"
#include "fused_sum.h"
#include "hesspect/tangent/kernels.h"

namespace hesspect {
namespace {

using Kind = FusedSum::Kind;

/// Whether x and the weights that are there are of one type that the kernels take.
bool takes(const Arguments& arguments, std::initializer_list<std::size_t> weights) {
  const at::Tensor& x = arguments.tensor(0);
  if (!is_fusible(x) || x.numel() == 0) return false;
  return std::ranges::all_of(weights, [&](std::size_t operand) {
    const at::Tensor w = arguments.optional_tensor(operand);
    return !w.defined() || w.scalar_type() == x.scalar_type();
  });
}

/// layer_norm(x, shape, w, b), rms_norm(x, shape, w): y = w∘x̂ + b, x̂ = r (x − ⟨x⟩), for RMS norm without ⟨x⟩.
class RowNorm final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    if (!takes(arguments, {2, is_centred(arguments) ? std::size_t{3} : 2}) || !reads_first_alone(arguments))
      return false;
    if (is_written_out(arguments)) {
      const at::Tensor &x = arguments.tensor(0), w = arguments.optional_tensor(2);
      const c10::IValue& type = arguments.values[4];
      if (x.dim() == 0 || (!type.isNone() && type.toScalarType() != x.scalar_type())) return false;
      if (w.defined() && (w.dim() != 1 || w.size(0) != x.size(-1))) return false;
    }
    return !arguments.active_beyond({0, 2, 3});
  }

  explicit RowNorm(const Arguments& arguments)
      : x_(arguments.tensor(0).contiguous()),
        w_(contiguous(arguments.optional_tensor(2))),
        centred_(is_centred(arguments)) {
    if (centred_) b_ = contiguous(arguments.optional_tensor(3));
    const c10::IValue& eps = arguments.values.at(centred_ ? 4 : 3);
    const double least = x_.scalar_type() == at::kFloat ? static_cast<double>(std::numeric_limits<float>::epsilon())
                                                        : std::numeric_limits<double>::epsilon();
    eps_ = eps.isNone() ? least : eps.toScalar().toDouble();
    normalised_ =
        is_written_out(arguments) ? std::vector<std::int64_t>{x_.size(-1)} : arguments.values.at(1).toIntVector();
    shape_ = x_.sizes().vec();
    columns_ = std::accumulate(normalised_.begin(), normalised_.end(), std::int64_t{1}, std::multiplies<>());
  }

  std::vector<at::Tensor> value() override {
    const at::Tensor y = at::empty_like(x_);
    x_hat_ = at::empty_like(x_);
    rstd_ = of_rows(1);
    fused::layer_norm({.x = x_,
                       .w = w_,
                       .b = std::exchange(b_, {}),
                       .y = y,
                       .x_hat = x_hat_,
                       .rstd = rstd_,
                       .columns = columns_,
                       .eps = eps_,
                       .centred = centred_});
    x_ = at::Tensor();
    return {y};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    x_dot_ = contiguous(dots.at(0));
    w_dot_ = contiguous_parts(dots.at(2));
    const at::Tensor y_dot = at::empty(with_count(dots.count(), shape_), x_hat_.options());
    if (x_dot_.defined()) {
      mean_dot_ = of_rows(dots.count());
      projection_dot_ = of_rows(dots.count());
    }
    fused::layer_norm_tangent({.x_dot = x_dot_,
                               .w = w_,
                               .w_dot = w_dot_,
                               .b_dot = contiguous_parts(dots.at(3)),
                               .x_hat = x_hat_,
                               .rstd = rstd_,
                               .y_dot = y_dot,
                               .mean_dot = mean_dot_,
                               .projection_dot = projection_dot_,
                               .columns = columns_,
                               .centred = centred_});
    return {y_dot};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    y_bar_ = y_bar[0][0].contiguous();
    m1_ = of_rows(1);
    m2_ = of_rows(1);
    FusedSum x(sink, 0, shape_, x_hat_.options(), Kind::kWhole);
    FusedSum w(sink, 2, normalised_, x_hat_.options(), Kind::kParts);
    FusedSum b(sink, 3, normalised_, x_hat_.options(), Kind::kParts);
    fused::layer_norm_adjoint({.y_bar = y_bar_,
                               .w = w_,
                               .x_hat = x_hat_,
                               .rstd = rstd_,
                               .x_bar = x.tensor(),
                               .m1 = m1_,
                               .m2 = m2_,
                               .w_bar = w.tensor(),
                               .b_bar = b.tensor(),
                               .columns = columns_,
                               .centred = centred_,
                               .add = x.adds()});
    x.close();
    w.close();
    b.close();
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor x_dot = std::exchange(x_dot_, {}), w_dot = std::exchange(w_dot_, {});
    const at::Tensor mean_dot = std::exchange(mean_dot_, {}), projection_dot = std::exchange(projection_dot_, {});
    const bool bends = y_bar_.defined() && (x_dot.defined() || w_dot.defined());
    if (!bends && !y_bar_dot[0].defined()) return;
    FusedSum x(sink, 0, shape_, x_hat_.options(), Kind::kWhole);
    FusedSum w(sink, 2, normalised_, x_hat_.options(), Kind::kParts);
    FusedSum b(sink, 3, normalised_, x_hat_.options(), Kind::kParts);
    fused::layer_norm_adjoint_tangent({.y_bar_dot = contiguous(y_bar_dot[0]),
                                       .y_bar = bends ? y_bar_ : at::Tensor(),
                                       .x_dot = x_dot,
                                       .mean_dot = mean_dot,
                                       .projection_dot = projection_dot,
                                       .w = w_,
                                       .w_dot = w_dot,
                                       .x_hat = x_hat_,
                                       .rstd = rstd_,
                                       .m1 = m1_,
                                       .m2 = m2_,
                                       .x_bar_dot = x.tensor(),
                                       .w_bar_dot = w.tensor(),
                                       .b_bar_dot = b.tensor(),
                                       .columns = columns_,
                                       .tangents = sink.count(),
                                       .centred = centred_,
                                       .add = x.adds()});
    x.close();
    w.close();
    b.close();
  }

 private:
  /// Whether the arguments are those of a fused region (fuse.h): x, None, w, eps, and the type of x̂ where it is said.
  static bool is_written_out(const Arguments& arguments) { return arguments.values.at(1).isNone(); }
  static bool is_centred(const Arguments& arguments) {
    return arguments.instruction.op->schema().name().find("layer_norm") != std::string::npos;
  }
  /// A number for each row of each tangent.
  at::Tensor of_rows(std::int64_t tangents) const {
    const std::int64_t numel = std::accumulate(shape_.begin(), shape_.end(), std::int64_t{1}, std::multiplies<>());
    return at::empty({tangents * (numel / columns_)}, x_hat_.options());
  }

  at::Tensor x_, w_, b_;
  bool centred_;
  double eps_ = 0;
  std::vector<std::int64_t> shape_, normalised_;  // of x; of what is normalised, and of w
  std::int64_t columns_ = 1;
  at::Tensor x_hat_, rstd_, y_bar_, m1_, m2_;  // m1, m2 [rows]: ⟨h⟩ and ⟨h∘x̂⟩ with h = w∘y_bar
  at::Tensor x_dot_, w_dot_, mean_dot_, projection_dot_;
};

}  // namespace

const RuleTable& norm_rules() {
  static const RuleTable rules = {
      {{"layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"}, make_rule<RowNorm>},
  };
  return rules;
}

}  // namespace hesspect
