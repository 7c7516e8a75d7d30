// torch.vmap in a program: the nodes between the begin and the end of one map are a region that runs as one unit, under
// a level of LibTorch's functorch.
//
// Inside, tensors hide a batch dimension, which lives as long as the level. As a unit the region takes and gives plain
// tensors, so that it is differentiated, tried and freed like any op: autograd records what the batched ops do to the
// tensors underneath, and the backward passes know nothing of the map.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hesspect {

struct Graph;
struct Instruction;

/// What a node of torch._functorch.predispatch does.
enum class VmapStep { kPrepare, kBegin, kAddBatchDim, kRemoveBatchDim, kEnd };

/// The step that a node's target stands for; nothing for others.
std::optional<VmapStep> vmap_step_from(const std::string& target);

/// Takes the instructions behind `begin` into a region, which `begin` becomes. Its operands are the batch size, the
/// mode of randomness, and what the region reads from outside; its outputs are all that it defines.
/// @param instructions  of one graph; begin + 1 and later ones are removed
void fold_vmap_region(std::vector<Instruction>& instructions, std::size_t begin);

/// Leaves to each region of a whole graph, nested ones too, the outputs that something outside reads.
void drop_unread_outputs(Graph& graph);

/// A level of functorch, popped when the region is left, by an exception too.
class VmapLevel {
 public:
  /// @param randomness  "error", "same" or "different", as torch.vmap has it
  VmapLevel(std::int64_t batch_size, const std::string& randomness);
  ~VmapLevel();
  VmapLevel(const VmapLevel&) = delete;
  VmapLevel& operator=(const VmapLevel&) = delete;
};

/// Hides dimension `dim` of x from the ops of the current level.
at::Tensor add_batch_dim(const at::Tensor& x, std::int64_t dim);

/// Shows the current level's dimension again, as dimension `dim`; repeats x where it has none.
at::Tensor remove_batch_dim(const at::Tensor& x, std::int64_t batch_size, std::int64_t dim);

/// Whether x hides a dimension of the current level: such a tensor must not outlive its region.
bool hides_batch_dim(const at::Tensor& x);

}  // namespace hesspect
