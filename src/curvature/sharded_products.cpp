#include "sharded_products.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/timer.h"
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
                                 const std::optional<Cuts>& cuts, std::int64_t tangents)
    : local_(local), batches_(batches), comm_(comm) {
  const at::NoGradGuard no_grad;
  find_sets(cuts ? *cuts : choose_cuts(tangents));
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
    for (std::size_t p = 0; p < program.layout().entries().size(); ++p)
      run.stored_bytes.push_back(program.layout().entries()[p].numel *
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
  segments_ = std::make_unique<Segments>(local_.tangent_program(), std::move(cuts));
  std::map<std::pair<std::vector<std::size_t>, at::ScalarType>, Set> by_readers;
  const std::vector<std::vector<std::size_t>> readers = segments_->readers(layout.entries().size());
  for (std::size_t p = 0; p < readers.size(); ++p) {
    Set& set = by_readers[{readers[p], program.stored_type(p)}];
    set.stored = program.stored_type(p);
    set.segments = readers[p];
    set.parameters.push_back(p);
  }
  const auto cut = std::make_shared<VectorCut>(comm_.size());
  sets_of_.resize(segments_->size());
  for (auto& [key, set] : by_readers) {
    std::vector<VectorCut::Range> ranges;
    std::int64_t offset = 0;
    for (const std::size_t p : set.parameters) {
      const ParameterEntry& entry = layout.entries()[p];
      set.offsets.push_back(offset);
      offset += entry.numel;
      if (entry.numel > 0) ranges.push_back({entry.offset, entry.numel});
    }
    cut->add(std::move(ranges), kUnit);
    for (const std::size_t segment : set.segments) sets_of_[segment].push_back(sets_.size());
    sets_.push_back(std::move(set));
  }
  shard_ = Shard::of(cut, comm_.rank(), layout.numbers());
}

void ShardedProducts::read_parameters() {
  agree(comm_, [&] {
    Program& program = local_.program();
    for (std::size_t g = 0; g < sets_.size(); ++g) {
      Set& set = sets_[g];
      const VectorCut::Set& cut = shard_.cut->sets()[g];
      set.mine = at::zeros({cut.chunk}, at::TensorOptions().dtype(set.stored));
      const std::int64_t first = cut.chunk * comm_.rank(), last = std::min(cut.size, first + cut.chunk);
      for (std::size_t i = 0; i < set.parameters.size(); ++i) {
        const ParameterEntry& entry = program.layout().entries()[set.parameters[i]];
        const std::int64_t from = std::max(first, set.offsets[i]);
        const std::int64_t to = std::min(last, set.offsets[i] + entry.numel);
        if (from >= to) continue;
        const at::Tensor read = program.read_parameter(set.parameters[i], from - set.offsets[i], to - from);
        if (!at::isfinite(read).all().item<bool>())
          throw InputError(program.where() + "parameter '" + entry.name +
                           "' holds non-finite values (NaN or infinity)");
        set.mine.narrow(0, from - first, to - from).copy_(read);
      }
      set.mine = set.mine.to(local_.tensor_options().device());
    }
    program.let_go_of_file();
    std::int64_t longest = 0;
    for (const VectorCut::Set& set : shard_.cut->sets()) longest = std::max(longest, set.chunk);
    part_ = at::empty({longest}, local_.tensor_options());
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

void ShardedProducts::all_gather(const at::Tensor& shard, at::Tensor& full) {
  const at::Tensor message = as_message(shard);
  at::Tensor whole = as_message(full);
  const Timer timer;
  comm_.all_gather(message, whole);
  traffic_.seconds += timer.elapsed_s();
  ++traffic_.messages;
  traffic_.bytes += (comm_.size() - 1) * static_cast<std::int64_t>(shard.nbytes());
}

/// Before any message, so that no rank runs out of memory between two of them. Collective.
void ShardedProducts::make_room(std::int64_t vectors) {
  if (vectors <= room_.vectors) return;
  std::int64_t stored = 0, entries = 0;
  for (const std::vector<std::size_t>& sets : sets_of_) {
    std::int64_t bytes = 0, length = 0;
    for (const std::size_t g : sets) {
      const std::int64_t padded = shard_.cut->sets()[g].chunk * comm_.size();
      bytes += padded * static_cast<std::int64_t>(sets_[g].mine.element_size());
      length += padded;
    }
    stored = std::max(stored, bytes);
    entries = std::max(entries, length);
  }
  room_ = {};
  agree(comm_, [&] {
    const at::TensorOptions options = local_.tensor_options();
    const bool widens = std::ranges::any_of(sets_, [&](const Set& set) { return set.stored != options.dtype(); });
    const std::int64_t stacked = std::max<std::int64_t>(1, vectors);
    room_.stored = at::empty({stored}, options.dtype(at::kByte));
    if (widens) room_.widened = at::empty({entries}, options);
    if (vectors > 0) room_.v = at::empty({stacked * entries}, options);
    room_.sums = at::empty({stacked * entries}, options);
    room_.vectors = vectors;
  });
}

ShardedProducts::Gathered ShardedProducts::gather(std::size_t segment, std::span<const at::Tensor> x, bool backwards) {
  const ParameterLayout& layout = local_.program().layout();
  const std::size_t parameters = layout.entries().size();
  const std::int64_t vectors = std::ssize(x), stacked = std::max<std::int64_t>(1, vectors);
  Gathered all;
  all.tensors.values.resize(parameters);
  if (vectors > 0) all.tensors.v.resize(parameters);
  if (backwards) all.tensors.sums.resize(parameters);
  std::int64_t byte = 0, entry = 0;  // in the room
  for (const std::size_t g : sets_of_[segment]) {
    const Set& set = sets_[g];
    const VectorCut::Set& cut = shard_.cut->sets()[g];
    const std::int64_t padded = comm_.size() * cut.chunk;
    const std::int64_t bytes = padded * static_cast<std::int64_t>(set.mine.element_size());
    at::Tensor whole = room_.stored.narrow(0, byte, bytes).view(set.stored);
    all_gather(set.mine, whole);
    at::Tensor v, sums;
    if (vectors > 0) {
      v = room_.v.narrow(0, stacked * entry, stacked * padded).view({stacked, padded});
      for (std::int64_t k = 0; k < stacked; ++k) {
        at::Tensor one = v[k];
        all_gather(x[static_cast<std::size_t>(k)].narrow(0, cut.local, cut.chunk), one);
      }
    }
    if (backwards) {
      sums = room_.sums.narrow(0, stacked * entry, stacked * padded).view({stacked, padded});
      sums.zero_();
    }
    at::Tensor values = whole;
    if (set.stored != local_.program().options().dtype) {
      values = room_.widened.narrow(0, entry, padded);
      values.copy_(whole);
    }
    for (std::size_t i = 0; i < set.parameters.size(); ++i) {
      const std::size_t p = set.parameters[i];
      const ParameterEntry& of = layout.entries()[p];
      std::vector<std::int64_t> shape = of.shape;
      all.tensors.values[p] = values.narrow(0, set.offsets[i], of.numel).view(shape);
      if (change_) change_(all.tensors.values[p], p);
      shape.insert(shape.begin(), stacked);
      const auto stack = [&](const at::Tensor& t) { return t.narrow(1, set.offsets[i], of.numel).view(shape); };
      if (vectors > 0) all.tensors.v[p] = stack(v);
      if (backwards) all.tensors.sums[p] = stack(sums);
    }
    all.sums.push_back(sums);
    byte += bytes;
    entry += padded;
  }
  return all;
}

/// Adds the sums of a segment, over all ranks, to the shards of the ranks that own them.
void ShardedProducts::scatter(std::size_t segment, const Gathered& gathered, std::span<at::Tensor> y) {
  const std::vector<std::size_t>& sets = sets_of_[segment];
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const VectorCut::Set& cut = shard_.cut->sets()[sets[i]];
    for (std::size_t k = 0; k < y.size(); ++k) {
      at::Tensor sum = gathered.sums[i][static_cast<std::int64_t>(k)];
      at::Tensor part = part_.narrow(0, 0, cut.chunk);
      const Timer timer;
      comm_.reduce_scatter_sum(sum, part);
      traffic_.seconds += timer.elapsed_s();
      ++traffic_.messages;
      traffic_.bytes += (comm_.size() - 1) * static_cast<std::int64_t>(part.nbytes());
      y[k].narrow(0, cut.local, cut.chunk).add_(part);
    }
  }
}

/// A product's sweeps over all segments, or a gradient's (no x), or those to the output (not backwards).
void ShardedProducts::sweep(std::vector<Sweeps>& sweeps, std::span<const at::Tensor> x, std::span<at::Tensor> y,
                            bool backwards) {
  const at::NoGradGuard no_grad;
  const std::size_t count = segments_->size();
  make_room(std::ssize(x));
  failure_ = nullptr;
  for (at::Tensor& one : y) one.zero_();
  guarded([&] {
    for (Sweeps& one : sweeps)
      if (backwards)
        one.begin_segments(*segments_, std::ssize(x), local_.choice().gauss_newton());
      else
        one.begin_outputs(*segments_);
  });
  for (std::size_t s = 0; s < count - (backwards ? 1 : 0); ++s) {
    const Gathered gathered = gather(s, x, /*backwards=*/false);
    guarded([&] {
      for (Sweeps& one : sweeps) one.segment_forwards(s, gathered.tensors);
    });
  }
  for (std::size_t s = backwards ? count : 0; s-- > 0;) {
    const Gathered gathered = gather(s, x, /*backwards=*/true);
    guarded([&] {
      for (Sweeps& one : sweeps) one.segment_backwards(s, gathered.tensors);
    });
    scatter(s, gathered, y);
  }
  agree(comm_, [&] {
    if (failure_) std::rethrow_exception(failure_);
  });
}

double ShardedProducts::gradient(at::Tensor& gradient) {
  sweep(sweeps_, {}, std::span(&gradient, 1), /*backwards=*/true);
  double sum = 0;
  for (Sweeps& one : sweeps_) sum += one.end_segments();
  return sum;
}

void ShardedProducts::products(std::span<const at::Tensor> x, std::span<at::Tensor> y) {
  const PrecisionScope scope(local_.choice().precision);
  sweep(sweeps_, x, y, /*backwards=*/true);
  for (Sweeps& one : sweeps_) one.end_segments();
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

at::Tensor ShardedProducts::run(const std::vector<at::Tensor>& inputs) {
  std::vector<Sweeps> one;
  one.emplace_back(local_.tangent_program(), inputs, nullptr);
  sweep(one, {}, {}, /*backwards=*/false);
  at::Tensor output = one.front().end_outputs().contiguous();
  comm_.broadcast(output, 0);  // what ranks decide by is the same bits on all
  return output;
}

RowCheck ShardedProducts::check_rows(const ArrayFile& file, const DatasetSpec& spec, const LossOptions& loss,
                                     int output_index) {
  Program& program = local_.program();
  Changes changes(*this);
  struct Scope {
    Program& program;
    ~Scope() { program.run_by(nullptr); }
  } const scope{program};
  program.run_by([&](const std::vector<at::Tensor>& inputs) {
    std::vector<at::Tensor> outputs(program.outputs().size());
    outputs[static_cast<std::size_t>(output_index)] = run(inputs);
    return outputs;
  });
  return hesspect::check_rows(program, file, spec, loss, output_index, &changes);
}

}  // namespace hesspect
