#include "vmap.h"

#include <ATen/ATen.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/functorch/BatchedFallback.h>
#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/functorch/DynamicLayer.h>

#include <set>
#include <unordered_map>

#include "hesspect/core/errors.h"
#include "hesspect/model/graph.h"

namespace hesspect {
namespace {

/// Numbers a region's slots anew. A slot that is read before it is defined comes from outside.
class RegionSlots {
 public:
  int read(int outer) {
    const auto [at, is_new] = numbers_.emplace(outer, next());
    if (is_new) captured_.push_back(outer);
    return at->second;
  }
  int define(int outer) {
    defined_.push_back(outer);
    return numbers_.emplace(outer, next()).first->second;
  }
  int number(int outer) const { return numbers_.at(outer); }
  int size() const { return next(); }
  std::vector<int> outer_numbers() const {
    std::vector<int> outer(numbers_.size());
    for (const auto& [from, to] : numbers_) outer[static_cast<std::size_t>(to)] = from;
    return outer;
  }
  const std::vector<int>& captured() const { return captured_; }
  const std::vector<int>& defined() const { return defined_; }

 private:
  int next() const { return static_cast<int>(numbers_.size()); }

  std::unordered_map<int, int> numbers_;
  std::vector<int> captured_, defined_;
};

at::functorch::RandomnessType randomness_from(const std::string& mode) {
  if (mode == "same") return at::functorch::RandomnessType::Same;
  if (mode == "different") return at::functorch::RandomnessType::Different;
  return at::functorch::RandomnessType::Error;
}

std::int64_t current_level() {
  const auto layer = at::functorch::maybeCurrentDynamicLayer();
  if (!layer) throw InputError("stands outside of a torch.vmap");
  return layer->layerId();
}

}  // namespace

std::optional<VmapStep> vmap_step_from(const std::string& target) {
  const std::string prefix = "torch._functorch.predispatch.";
  if (!target.starts_with(prefix)) return std::nullopt;
  const std::string name = target.substr(prefix.size());
  if (name == "lazy_load_decompositions") return VmapStep::kPrepare;
  if (name == "_vmap_increment_nesting") return VmapStep::kBegin;
  if (name == "_add_batch_dim") return VmapStep::kAddBatchDim;
  if (name == "_remove_batch_dim") return VmapStep::kRemoveBatchDim;
  if (name == "_vmap_decrement_nesting") return VmapStep::kEnd;
  return std::nullopt;
}

void fold_vmap_region(std::vector<Instruction>& instructions, std::size_t begin) {
  auto inner = std::make_unique<Graph>();
  RegionSlots slots;
  for (std::size_t i = begin + 1; i < instructions.size(); ++i) {
    Instruction& instruction = instructions[i];
    for (Operand& operand : instruction.operands) for_each_slot(operand, [&](int& slot) { slot = slots.read(slot); });
    for (int& slot : instruction.outputs)
      if (slot >= 0) slot = slots.define(slot);
    inner->instructions.push_back(std::move(instruction));
  }
  instructions.resize(begin + 1);
  Instruction& region = instructions[begin];
  inner->slots = slots.size();
  inner->folded_from = slots.outer_numbers();
  for (const int outer : slots.captured()) {
    inner->inputs.push_back(slots.number(outer));
    region.operands.push_back(slot_operand(outer));
  }
  for (const int outer : slots.defined()) {
    inner->outputs.push_back(slot_operand(slots.number(outer)));
    region.outputs.push_back(outer);
  }
  region.writes.resize(region.operands.size(), false);
  region.subgraph = std::move(inner);
}

void drop_unread_outputs(Graph& graph) {
  const std::set<int> read = slots_read(graph);
  for (Instruction& region : graph.instructions) {
    if (region.kind != Instruction::Kind::kVmap) continue;
    std::vector<int> kept;
    std::vector<Operand> kept_inside;
    for (std::size_t i = 0; i < region.outputs.size(); ++i) {
      if (!read.contains(region.outputs[i])) continue;
      kept.push_back(region.outputs[i]);
      kept_inside.push_back(region.subgraph->outputs[i]);
    }
    region.outputs = std::move(kept);
    region.subgraph->outputs = std::move(kept_inside);
    drop_unread_outputs(*region.subgraph);
  }
}

VmapLevel::VmapLevel(std::int64_t batch_size, const std::string& randomness) {
  at::functorch::setVmapFallbackWarningEnabled(
      false);  // an op without a batching rule runs row by row: slow, but right
  at::functorch::initAndPushDynamicLayer(at::functorch::TransformType::Vmap, c10::SymInt(batch_size),
                                         randomness_from(randomness));
}

VmapLevel::~VmapLevel() { at::functorch::popDynamicLayerAndDeleteMetadata(); }

at::Tensor add_batch_dim(const at::Tensor& x, std::int64_t dim) {
  return at::functorch::addBatchDim(x, at::maybe_wrap_dim(dim, x.dim()), current_level());
}

at::Tensor remove_batch_dim(const at::Tensor& x, std::int64_t batch_size, std::int64_t dim) {
  const std::int64_t to = at::maybe_wrap_dim(dim, x.dim() + 1);
  const auto* batched = at::functorch::maybeGetBatchedImpl(x);
  if (batched != nullptr && batched->level() == current_level()) return batched->value().movedim(batched->bdim(), to);
  std::vector<std::int64_t> sizes = x.sizes().vec();
  sizes.insert(sizes.begin() + to, batch_size);
  return x.unsqueeze(to).expand(sizes);
}

bool hides_batch_dim(const at::Tensor& x) {
  const auto* batched = x.defined() ? at::functorch::maybeGetBatchedImpl(x) : nullptr;
  return batched != nullptr && batched->level() == current_level();
}

}  // namespace hesspect
