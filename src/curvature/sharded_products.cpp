#include "sharded_products.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/timer.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/tangent/precision.h"
#include "hesspect/tangent/program_cost.h"
#include "parameter_changes.h"

namespace hesspect {
namespace {

/// Entries of which chunks are multiples. Numbers of two bytes are sent in pairs; and every vector of several begins at
/// the same place in a cache line, for kernels round differently by alignment.
constexpr std::int64_t kUnit = 16;

/// A message's tensor as the communicators take it: numbers of two bytes go in pairs, as they are.
at::Tensor as_message(const at::Tensor& tensor) {
  return tensor.element_size() == 2 ? tensor.view(at::kFloat) : tensor;
}

}  // namespace

ShardedProducts::ShardedProducts(LocalLoss& local, const std::vector<MicroBatch>& batches, Communicator& comm,
                                 const ShardedOptions& options)
    : local_(local),
      batches_(batches),
      comm_(comm),
      crossing_on_host_(options.crossing_on_host),
      on_host_(options.on_host),
      side_(local.tensor_options().device()),
      fetch_ahead_(options.fetch_ahead && (comm.size() > 1 || options.on_host)),
      span_(std::max<std::size_t>(1, options.span)),
      passes_(std::max<std::size_t>(1, options.passes)) {
  const at::NoGradGuard no_grad;
  find_sets(options.cuts ? *options.cuts : choose_cuts(options.tangents));
  read_parameters();
  agree(comm_, [&] {
    for (const MicroBatch& batch : batches_) sweeps_.push_back(local_.sweeps(batch));
  });
}

ShardedProducts::~ShardedProducts() = default;

/// Ranks without rows have no shapes to go by, and cuts must be the same on all: the first rank that has rows finds
/// them.
Cuts ShardedProducts::choose_cuts(std::int64_t tangents) {
  const int rank = comm_.rank();
  const auto finder = static_cast<int>(comm_.min(batches_.empty() ? comm_.size() : rank));
  std::string text = agreed(comm_, [&] {
    std::string found;
    if (rank != finder) return found;
    ShardedSettings run{.ranks = comm_.size(), .micro_batches = std::ssize(batches_), .tangents = tangents};
    const Program& program = local_.program();
    for (std::size_t p = 0; p < program.brought_count(); ++p)
      run.stored_bytes.push_back(program.brought(p).numel *
                                 static_cast<std::int64_t>(c10::elementSize(program.stored_type(p))));
    for (const std::size_t cut : find_cuts(local_.tangent_program(), batches_.front().inputs, run))
      found += std::to_string(cut) + ' ';
    return found;
  });
  if (finder < comm_.size()) text = comm_.broadcast_bytes(text, finder);
  Cuts cuts;
  for (std::size_t at = 0; at < text.size(); at = text.find(' ', at) + 1) cuts.push_back(std::stoul(text.substr(at)));
  return cuts;
}

void ShardedProducts::find_sets(Cuts cuts) {
  const Program& program = local_.program();
  const ParameterLayout& layout = program.layout();
  segments_ = std::make_unique<Segments>(local_.tangent_program(), std::move(cuts), crossing_on_host_);
  std::map<std::tuple<std::vector<std::size_t>, at::ScalarType, bool>, Set> by_readers;
  const std::vector<std::vector<std::size_t>> readers = segments_->readers(program.brought_count());
  for (std::size_t p = 0; p < readers.size(); ++p) {
    const bool is_fixed = !is_in_vectors(p);
    if (is_fixed && readers[p].empty()) continue;
    Set& set = by_readers[{readers[p], program.stored_type(p), is_fixed}];
    set.stored = program.stored_type(p);
    set.is_fixed = is_fixed;
    set.parameters.push_back(p);
  }
  const auto cut = std::make_shared<VectorCut>(comm_.size());
  sets_of_.resize(segments_->size());
  for (auto& [key, set] : by_readers) {
    std::vector<VectorCut::Range> ranges;
    std::int64_t offset = 0;
    for (const std::size_t p : set.parameters) {
      const ParameterEntry& entry = program.brought(p);
      set.offsets.push_back(offset);
      offset += entry.numel;
      if (entry.numel > 0) ranges.push_back({entry.offset, entry.numel});
    }
    VectorCut apart(comm_.size());
    VectorCut& into = set.is_fixed ? apart : *cut;
    into.add(std::move(ranges), kUnit);
    set.cut = into.sets().back();
    for (const std::size_t segment : std::get<0>(key)) sets_of_[segment].push_back(sets_.size());
    sets_.push_back(std::move(set));
  }
  shard_ = Shard::of(cut, comm_.rank(), layout.numbers());
}

void ShardedProducts::read_parameters() {
  agree(comm_, [&] {
    Program& program = local_.program();
    for (Set& set : sets_) {
      const VectorCut::Set& cut = set.cut;
      set.mine = at::zeros({cut.chunk}, at::TensorOptions().dtype(set.stored));
      const std::int64_t first = cut.chunk * comm_.rank(), last = std::min(cut.size, first + cut.chunk);
      for (std::size_t i = 0; i < set.parameters.size(); ++i) {
        const ParameterEntry& entry = program.brought(set.parameters[i]);
        const std::int64_t from = std::max(first, set.offsets[i]);
        const std::int64_t to = std::min(last, set.offsets[i] + entry.numel);
        if (from >= to) continue;
        const at::Tensor read = program.read_parameter(set.parameters[i], from - set.offsets[i], to - from);
        if (!at::isfinite(read).all().item<bool>())
          throw InputError(program.where() + "parameter '" + entry.name +
                           "' holds non-finite values (NaN or infinity)");
        set.mine.narrow(0, from - first, to - from).copy_(read);
      }
      if (!on_host_)
        set.mine = set.mine.to(local_.tensor_options().device());
      else if (local_.tensor_options().device().is_cuda())
        set.mine = set.mine.pin_memory();
    }
    program.let_go_of_file();
  });
}

template <class Work>
void ShardedProducts::guarded(Work&& work) {
  if (failure_) return;
  try {
    work();
  } catch (...) {
    failure_ = std::current_exception();
  }
}

/// Before any message, so that no rank runs out of memory between two of them. Collective.
void ShardedProducts::make_room(std::int64_t vectors, std::int64_t others) {
  if (vectors <= vectors_ && others <= others_) return;
  vectors = std::max(vectors, vectors_);
  others = std::max(others, others_);
  std::int64_t stored = 0, all_entries = 0, entries = 0;  // of the largest segment; entries: of vectors
  for (const std::vector<std::size_t>& sets : sets_of_) {
    std::int64_t bytes = 0, length = 0, in_vectors = 0;
    for (const std::size_t g : sets) {
      const std::int64_t padded = sets_[g].cut.chunk * comm_.size();
      bytes += padded * static_cast<std::int64_t>(sets_[g].mine.element_size());
      length += padded;
      if (!sets_[g].is_fixed) in_vectors += padded;
    }
    stored = std::max(stored, bytes);
    all_entries = std::max(all_entries, length);
    entries = std::max(entries, in_vectors);
  }
  rooms_.clear();
  parts_ = at::Tensor();
  agree(comm_, [&] {
    const at::TensorOptions options = local_.tensor_options();
    const bool widens = std::ranges::any_of(sets_, [&](const Set& set) { return set.stored != options.dtype(); });
    const std::int64_t stacked = std::max<std::int64_t>(1, vectors);
    rooms_.resize(fetch_ahead_ ? 2 : 1);
    for (Room& room : rooms_) {
      room.stored = at::empty({stored}, options.dtype(at::kByte));
      if (widens) room.widened = at::empty({all_entries}, options);
      if (vectors > 0) room.v = at::empty({stacked * entries}, options);
      if (others > 0) room.others = at::empty({others * entries}, options);
      room.sums = at::empty({stacked * entries}, options);
      if (!on_host_) continue;
      const bool is_locked = options.device().is_cuda();
      const std::int64_t share =
          (stored + (vectors + others) * entries * static_cast<std::int64_t>(options.dtype().itemsize())) /
          comm_.size();
      room.locked = at::empty({share}, at::TensorOptions().dtype(at::kByte).pinned_memory(is_locked));
      room.brought = at::empty({share}, options.dtype(at::kByte));
    }
    parts_ = at::empty({stacked * entries / comm_.size()}, options);
    vectors_ = vectors;
    others_ = others;
  });
}

bool ShardedProducts::is_in_vectors(std::size_t parameter) const {
  return parameter < local_.program().layout().entries().size();
}

void ShardedProducts::count(std::int64_t sent_bytes) {
  ++traffic_.messages;
  traffic_.bytes += (comm_.size() - 1) * sent_bytes;
}

ShardedProducts::Fetch ShardedProducts::begin_fetch(const SegmentVisit& visit, std::span<const at::Tensor> x,
                                                    Room& room) {
  const std::int64_t vectors = std::ssize(x), stacked = std::max<std::int64_t>(1, vectors);
  Fetch fetch{.visit = visit, .messages = {}, .stored = {}, .values = {}, .v = {}, .sums = {}, .others = {}};
  std::int64_t at = 0;  // in what is brought from the host
  /// This rank's share, on the device: from page-locked memory it comes beside the stream's work.
  const auto brought = [&](const at::Tensor& shard) {
    if (!on_host_) return shard;
    const auto bytes = static_cast<std::int64_t>(shard.nbytes());
    const auto part = [&](const at::Tensor& memory) {
      return memory.narrow(0, at, bytes).view(shard.scalar_type()).view(shard.sizes());
    };
    at::Tensor locked = part(room.locked), here = part(room.brought);
    at += bytes;
    if (!shard.is_pinned()) locked.copy_(shard);
    here.copy_(shard.is_pinned() ? shard : locked, /*non_blocking=*/true);
    return here;
  };
  const auto gather = [&](const at::Tensor& shard, const at::Tensor& full) {
    at::Tensor whole = as_message(full);
    fetch.messages.push_back(comm_.begin_all_gather(as_message(brought(shard)), whole));
    count(static_cast<std::int64_t>(shard.nbytes()));
  };
  const Timer timer;
  const auto begin_all = [&] {
    const std::int64_t others = groups_ != nullptr && visit.backwards ? std::ssize(groups_->others) : 0;
    std::int64_t byte = 0, entry = 0, in_vectors = 0;  // in the room
    for (const std::size_t g : sets_of_[visit.segment]) {
      const Set& set = sets_[g];
      const VectorCut::Set& cut = set.cut;
      const std::int64_t padded = comm_.size() * cut.chunk;
      const std::int64_t bytes = padded * static_cast<std::int64_t>(set.mine.element_size());
      const auto stack = [&](const at::Tensor& memory, std::int64_t count) {
        return memory.narrow(0, count * in_vectors, count * padded).view({count, padded});
      };
      const auto shard_of = [&](const at::Tensor& vector) { return vector.narrow(0, cut.local, cut.chunk); };
      fetch.stored.push_back(room.stored.narrow(0, byte, bytes).view(set.stored));
      const bool widens = set.stored != local_.program().options().dtype;
      fetch.values.push_back(widens ? room.widened.narrow(0, entry, padded) : fetch.stored.back());
      const bool with_vectors = is_chosen(set);
      fetch.v.push_back(with_vectors && vectors > 0 ? stack(room.v, stacked) : at::Tensor());
      fetch.sums.push_back(with_vectors && visit.backwards ? stack(room.sums, stacked) : at::Tensor());
      fetch.others.push_back(with_vectors && others > 0 ? stack(room.others, others) : at::Tensor());
      gather(set.mine, fetch.stored.back());
      for (std::int64_t k = 0; with_vectors && k < vectors; ++k)
        gather(shard_of(x[static_cast<std::size_t>(k)]), fetch.v.back()[k]);
      for (std::int64_t o = 0; with_vectors && o < others; ++o)
        gather(shard_of(groups_->others[static_cast<std::size_t>(o)]), fetch.others.back()[o]);
      byte += bytes;
      entry += padded;
      if (!set.is_fixed) in_vectors += padded;
    }
  };
  if (on_host_) {
    side_.run(begin_all);
    fetch.messages.push_back(side_.mark());
  } else {
    begin_all();
  }
  traffic_.seconds += timer.elapsed_s();
  return fetch;
}

/// When all has come: what the segment works with.
SegmentTensors ShardedProducts::arrived(Fetch& fetch) {
  const Timer timer;
  for (const std::unique_ptr<Pending>& message : fetch.messages) message->wait();
  traffic_.seconds += timer.elapsed_s();
  const Program& program = local_.program();
  const std::size_t parameters = program.layout().entries().size();
  SegmentTensors tensors;
  tensors.values.resize(program.brought_count());
  if (vectors_taken_ > 0) tensors.v.resize(parameters);
  if (fetch.visit.backwards) tensors.sums.resize(parameters);
  const std::vector<std::size_t>& sets = sets_of_[fetch.visit.segment];
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const Set& set = sets_[sets[i]];
    if (!fetch.values[i].is_alias_of(fetch.stored[i])) fetch.values[i].copy_(fetch.stored[i]);
    if (fetch.sums[i].defined()) fetch.sums[i].zero_();
    for (std::size_t j = 0; j < set.parameters.size(); ++j) {
      const std::size_t p = set.parameters[j];
      const ParameterEntry& of = program.brought(p);
      std::vector<std::int64_t> shape = of.shape;
      tensors.values[p] = fetch.values[i].narrow(0, set.offsets[j], of.numel).view(shape);
      if (change_) change_(tensors.values[p], p);
      if (!is_chosen(p)) continue;
      shape.insert(shape.begin(), std::max<std::int64_t>(1, vectors_taken_));
      const auto stacked = [&](const at::Tensor& t) { return t.narrow(1, set.offsets[j], of.numel).view(shape); };
      if (fetch.v[i].defined()) tensors.v[p] = stacked(fetch.v[i]);
      if (fetch.sums[i].defined()) tensors.sums[p] = stacked(fetch.sums[i]);
    }
  }
  return tensors;
}

/// The sums of a segment, over all ranks, set out for the shards of the ranks that own them.
ShardedProducts::Sums ShardedProducts::begin_sums(const Fetch& fetch, std::span<at::Tensor> y) {
  Sums sums;
  const std::vector<std::size_t>& sets = sets_of_[fetch.visit.segment];
  const Timer timer;
  std::int64_t at = 0;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    if (!fetch.sums[i].defined()) continue;
    const VectorCut::Set& cut = sets_[sets[i]].cut;
    for (std::size_t k = 0; k < y.size(); ++k) {
      Sums::One one{.message = nullptr,
                    .whole = fetch.sums[i][static_cast<std::int64_t>(k)],
                    .part = parts_.narrow(0, at, cut.chunk),
                    .mine = y[k].narrow(0, cut.local, cut.chunk)};
      one.message = comm_.begin_reduce_scatter_sum(one.whole, one.part);
      count(static_cast<std::int64_t>(one.part.nbytes()));
      at += cut.chunk;
      sums.all.push_back(std::move(one));
    }
  }
  traffic_.seconds += timer.elapsed_s();
  return sums;
}

void ShardedProducts::finish(Sums& sums) {
  for (const Sums::One& one : sums.all) {
    const Timer timer;
    one.message->wait();
    traffic_.seconds += timer.elapsed_s();
    one.mine.add_(one.part.to(one.mine.device()));
  }
  sums.all.clear();
}

bool ShardedProducts::is_chosen(const Set& set) const {
  return std::ranges::any_of(set.parameters, [&](std::size_t p) { return is_chosen(p); });
}

/// Where nothing that is chosen is made, no visit goes back.
std::vector<SegmentVisit> ShardedProducts::visits(bool backwards) const {
  std::vector<SegmentVisit> all;
  if (!backwards) {
    for (std::size_t s = 0; s < segments_->size(); ++s) all.push_back({.segment = s});
    return all;
  }
  const std::vector<bool> every(local_.program().layout().entries().size(), true);
  const std::vector<bool>& chosen = chosen_.empty() ? every : chosen_;
  return without_unreached(product_visits(segments_->size(), span_),
                           Segments::reached(local_.tangent_program(), segments_->cuts(), chosen), span_);
}

void ShardedProducts::work(std::span<Sweeps> sweeps, const Fetch& fetch, const SegmentTensors& tensors) {
  const SegmentVisit& visit = fetch.visit;
  const bool in_groups = groups_ != nullptr && visit.backwards;
  const auto first = in_groups ? static_cast<std::size_t>(sweeps.data() - sweeps_.data()) : 0;
  std::vector<double> before;  // what the sums so far make, at the last group's end
  for (std::size_t i = 0; i < sweeps.size(); ++i) {
    Sweeps& one = sweeps[i];
    if (visit.backwards)
      one.segment_backwards(visit.segment, tensors);
    else
      one.segment_forwards(visit.segment, tensors);
    if (visit.lets_go_from) one.let_go_of_inner(*visit.lets_go_from, visit.segment);
    if (!in_groups) continue;
    const std::int64_t group = groups_->group_of[first + i];
    if (i + 1 == sweeps.size() || groups_->group_of[first + i + 1] != group) end_group(group, fetch, before);
  }
}

/// What the sums of the segment have grown by is the group's: stretch by stretch of a set that lies in one of the
/// segments of a vector that sums are taken over.
void ShardedProducts::end_group(std::int64_t group, const Fetch& fetch, std::vector<double>& before) {
  const std::vector<std::int64_t>& edges = groups_->segments;
  const std::size_t rows = 1 + groups_->others.size(), segments = edges.size() - 1;
  const auto groups = static_cast<std::size_t>(groups_->groups), in_group = static_cast<std::size_t>(group);
  const std::vector<std::size_t>& sets = sets_of_[fetch.visit.segment];
  std::size_t next = 0;  // in `before`
  for (std::size_t i = 0; i < sets.size(); ++i) {
    if (!fetch.sums[i].defined()) continue;
    const Set& set = sets_[sets[i]];
    const auto segment_of = [&](std::size_t j) {
      const std::int64_t offset = local_.program().brought(set.parameters[j]).offset;
      return static_cast<std::size_t>(std::ranges::upper_bound(edges, offset) - edges.begin()) - 1;
    };
    for (std::size_t j = 0, end = 0; j < set.parameters.size(); j = end) {
      const std::size_t segment = std::min(segment_of(j), segments - 1);
      for (end = j + 1; end < set.parameters.size() && segment_of(end) == segment_of(j);) ++end;
      const std::int64_t from = set.offsets[j];
      const std::int64_t length = (end < set.offsets.size() ? set.offsets[end] : set.cut.size) - from;
      if (length == 0) continue;
      for (std::int64_t k = 0; k < vectors_taken_; ++k) {
        std::vector<at::Tensor> with{fetch.v[i][k].narrow(0, from, length).unsqueeze(0)};
        for (std::size_t o = 0; o + 1 < rows; ++o)
          with.push_back(fetch.others[i][static_cast<std::int64_t>(o)].narrow(0, from, length).unsqueeze(0));
        const std::vector<double> now = dots(with, fetch.sums[i][k].narrow(0, from, length));
        for (std::size_t r = 0; r < rows; ++r, ++next) {
          if (next == before.size()) before.push_back(0);
          const std::size_t of_group = (static_cast<std::size_t>(k) * groups + in_group) * rows + r;
          groups_->sums[of_group * segments + segment] += now[r] - before[next];
          before[next] = now[r];
        }
      }
    }
  }
}

/// A product's sweeps over all segments, or a gradient's (no x), or those to the output (not backwards).
void ShardedProducts::sweep(std::span<Sweeps> sweeps, std::span<const at::Tensor> x, std::span<at::Tensor> y,
                            bool backwards) {
  const at::NoGradGuard no_grad;
  make_room(std::ssize(x), groups_ != nullptr ? std::ssize(groups_->others) : 0);
  vectors_taken_ = std::ssize(x);
  failure_ = nullptr;
  terms_.clear();
  for (at::Tensor& one : y) one.zero_();
  const std::size_t passes = backwards ? passes_ : 1, each = (sweeps.size() + passes - 1) / passes;
  for (std::size_t p = 0; p < passes; ++p) {
    const std::size_t first = std::min(sweeps.size(), p * each);
    pass(sweeps.subspan(first, std::min(each, sweeps.size() - first)), x, y, backwards);
  }
  agree(comm_, [&] {
    if (failure_) std::rethrow_exception(failure_);
  });
}

/// Of some micro-batches, whose products are added to y.
void ShardedProducts::pass(std::span<Sweeps> sweeps, std::span<const at::Tensor> x, std::span<at::Tensor> y,
                           bool backwards) {
  guarded([&] {
    for (Sweeps& one : sweeps)
      if (backwards)
        one.begin_segments(*segments_, std::ssize(x), local_.choice().gauss_newton(), chosen_);
      else
        one.begin_outputs(*segments_);
  });
  const std::vector<SegmentVisit> all = visits(backwards);
  const auto fetch_for = [&](std::size_t i) { return begin_fetch(all[i], x, rooms_[i % rooms_.size()]); };
  Fetch next = fetch_for(0);
  Sums before;
  for (std::size_t i = 0; i < all.size(); ++i) {
    Fetch fetch = std::exchange(next, {});
    SegmentTensors tensors = arrived(fetch);
    const bool is_last = i + 1 == all.size();
    if (fetch_ahead_) {
      if (!is_last) next = fetch_for(i + 1);
      tensors.between_nodes = [&] {
        for (const std::unique_ptr<Pending>& message : next.messages) message->poll();
        if (!before.all.empty()) before.all.back().message->poll();
      };
    }
    guarded([&] { work(sweeps, fetch, tensors); });
    finish(before);
    if (all[i].backwards) before = begin_sums(fetch, y);
    if (fetch_ahead_) continue;
    finish(before);
    if (!is_last) next = fetch_for(i + 1);
  }
  finish(before);
  if (!backwards) return;
  guarded([&] {
    for (Sweeps& one : sweeps) terms_.push_back(one.end_segments());
  });
}

at::TensorOptions ShardedProducts::vector_options() const {
  const at::TensorOptions options = local_.tensor_options();
  return on_host_ ? options.device(at::kCPU) : options;
}

const std::vector<double>& ShardedProducts::gradient(at::Tensor& gradient) {
  sweep(sweeps_, {}, std::span(&gradient, 1), /*backwards=*/true);
  return terms_;
}

void ShardedProducts::products(std::span<const at::Tensor> x, std::span<at::Tensor> y, const std::vector<bool>& chosen,
                               GroupsOfProduct* groups) {
  const PrecisionScope scope(local_.choice().precision);
  chosen_ = chosen;
  groups_ = groups;
  if (groups != nullptr)
    groups->sums.assign(x.size() * static_cast<std::size_t>(groups->groups) * (1 + groups->others.size()) *
                            (groups->segments.size() - 1),
                        0.0);
  struct All {
    ShardedProducts& products;
    ~All() {
      products.chosen_.clear();
      products.groups_ = nullptr;
    }
  } const all_again{*this};
  sweep(sweeps_, x, y, /*backwards=*/true);
}

std::vector<at::Tensor> ShardedProducts::outputs() {
  sweep(sweeps_, {}, {}, /*backwards=*/false);
  std::vector<at::Tensor> outputs;
  for (Sweeps& one : sweeps_) outputs.push_back(one.end_outputs());
  return outputs;
}

/// Changes parameters as they are gathered: nothing is kept, and nothing set back.
class ShardedProducts::Changes final : public ParameterChanges {
 public:
  explicit Changes(ShardedProducts& products) : products_(products) {}
  ~Changes() override { products_.change_ = nullptr; }
  Changes(const Changes&) = delete;
  Changes& operator=(const Changes&) = delete;

  void move_away() override {
    moved_ = true;
    set();
  }
  void round(double epsilon, int draw) override {
    products_.change_ = [moved = moved_, epsilon, draw](const at::Tensor& values, std::size_t parameter) {
      if (moved) changes::move_away(values, parameter);
      changes::round(values, parameter, epsilon, draw);
    };
  }
  void set() override {
    products_.change_ = nullptr;
    if (moved_) products_.change_ = changes::move_away;
  }

 private:
  ShardedProducts& products_;
  bool moved_ = false;
};

std::vector<at::Tensor> ShardedProducts::run(const std::vector<at::Tensor>& inputs, std::size_t output,
                                             const std::vector<std::size_t>& free) {
  std::vector<Sweeps> one;
  one.emplace_back(local_.tangent_program(), inputs, nullptr);
  sweep(one, {}, {}, /*backwards=*/false);
  std::vector<at::Tensor> outputs(local_.program().outputs().size());
  if (!free.empty()) {
    const std::vector<at::Tensor> all = agreed(comm_, [&] { return local_.program().run_here(inputs); });
    for (const std::size_t i : free) outputs[i] = all[i].to(at::kDouble).contiguous();
  }
  outputs[output] = one.front().end_outputs().contiguous();
  for (at::Tensor& tensor : outputs)
    if (tensor.defined()) comm_.broadcast(tensor, 0);  // what ranks decide by is the same bits on all
  return outputs;
}

RowCheck ShardedProducts::check_rows(const ArrayFile& file, const DatasetSpec& spec, const LossOptions& loss,
                                     int output_index) {
  Program& program = local_.program();
  Changes changes(*this);
  struct Scope {
    Program& program;
    ~Scope() { program.run_by(nullptr); }
  } const scope{program};
  const auto output = static_cast<std::size_t>(output_index);
  std::vector<std::size_t> free;  // outputs that may be counts
  for (std::size_t i = 0; i < program.outputs().size() && loss.kind == LossKind::kOutput; ++i)
    if (i != output && program.outputs()[i].is_tensor && !reads_parameters(program, i)) free.push_back(i);
  program.run_by([&](const std::vector<at::Tensor>& inputs) { return run(inputs, output, free); });
  return hesspect::check_rows(program, file, spec, loss, output_index, &changes);
}

}  // namespace hesspect
