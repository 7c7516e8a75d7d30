// Where to cut a program into segments.
//
// A product in segments holds what crosses any cut, value and tangent, and the values, tangents and adjoints of one
// segment. Both are estimated from the bytes of each value in one run. For a number of sizes of segments, cuts are put
// where few bytes cross; the size with the least peak wins.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>

#include "hesspect/model/executor.h"
#include "program_impl.h"

namespace hesspect {
namespace {

/// What is alive of a node between the sweeps of its segment, in units of its output: what its rule keeps, tangent,
/// adjoint and the adjoint's tangent.
constexpr std::int64_t kCopiesInside = 4;
constexpr std::size_t kMostSegments = 256;

struct Slot {
  int made = -1, read = -1;  // nodes
  std::int64_t bytes = 0;
};

class Cutter {
 public:
  Cutter(const TangentProgram::Impl& program, const std::vector<at::Tensor>& inputs)
      : program_(program), list_(program.list), slots_(index(list_.slots)), inside_(list_.nodes.size(), 0) {
    measure(inputs);
    crossing_.assign(list_.nodes.size() + 1, 0);
    for (const Slot& slot : slots_)
      for (int p = slot.made + 1; slot.made >= 0 && p <= slot.read; ++p) crossing_[index(p)] += slot.bytes;
  }

  Cuts best() const {
    std::int64_t total = 0;
    for (const std::int64_t bytes : inside_) total += bytes;
    Cuts best;
    std::int64_t least = total;
    for (std::size_t segments = 2; segments <= std::min(kMostSegments, list_.nodes.size());
         segments += 1 + segments / 8) {
      Cuts cuts = with_segments_of(total / static_cast<std::int64_t>(segments));
      const std::int64_t peak = peak_of(cuts);
      // Fewer cuts where they do nearly as well.
      if (cuts.empty() || static_cast<double>(peak) > 0.97 * static_cast<double>(least)) continue;
      least = peak;
      best = std::move(cuts);
    }
    return best;
  }

 private:
  /// Runs the program once, the head excepted, and notes what each value takes. Views of other values take nothing.
  void measure(const std::vector<at::Tensor>& inputs) {
    const at::NoGradGuard no_grad;
    const DefaultDtypeScope default_dtype(program_.program.default_dtype());
    Frame frame = program_.first_values(inputs);
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      const Node& node = list_.nodes[n];
      for (const Operand& operand : node.operands)
        for_each_slot(operand, [&](int slot) { slots_[index(slot)].read = static_cast<int>(n); });
      if (static_cast<int>(n) == program_.linear_head) continue;
      try {
        run(n, frame);
      } catch (...) {
        rethrow_for(node.instruction->origin, program_.program.where());
      }
      for (const int slot : node.dead) frame[index(slot)] = c10::IValue();
    }
  }

  void run(std::size_t n, Frame& frame) {
    const Node& node = list_.nodes[n];
    std::vector<c10::IValue> stack;
    std::vector<at::Tensor> given;
    for (const Operand& operand : node.operands) stack.push_back(materialise(operand, frame));
    for (const c10::IValue& value : stack) {
      if (value.isTensor()) given.push_back(value.toTensor());
      if (value.isTensorList())
        for (const at::Tensor& item : value.toTensorVector()) given.push_back(item);
    }
    Arguments{*node.instruction, node.sources, {}, node.op ? &*node.op : nullptr}.call(stack);
    const auto note = [&](std::size_t i, const c10::IValue& value) {
      if (node.outputs[i] < 0) return;
      Slot& slot = slots_[index(node.outputs[i])];
      slot.made = static_cast<int>(n);
      frame[index(node.outputs[i])] = value;
      if (!value.isTensor() || !value.toTensor().defined()) return;
      const at::Tensor& tensor = value.toTensor();
      const bool is_view = std::ranges::any_of(
          given, [&](const at::Tensor& x) { return x.defined() && x.has_storage() && tensor.is_alias_of(x); });
      const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
      const bool active = list_.active[index(node.outputs[i])];
      slot.bytes = bytes * (active ? 2 : 1);
      if (!is_view) inside_[n] += bytes * (active ? kCopiesInside : 1);
    };
    if (node.instruction->spreads_list) {
      const std::vector<at::Tensor> tensors = stack.at(0).toTensorVector();
      for (std::size_t i = 0; i < node.outputs.size(); ++i) note(i, tensors.at(i));
    } else {
      for (std::size_t i = 0; i < node.outputs.size() && i < stack.size(); ++i) note(i, stack[i]);
    }
  }

  /// Segments of about so many bytes inside, each ending where the fewest bytes cross in its last half.
  Cuts with_segments_of(std::int64_t bytes) const {
    Cuts cuts;
    std::int64_t held = 0, least = std::numeric_limits<std::int64_t>::max();
    std::size_t best = 0;
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      if (held > bytes && best > 0) {
        cuts.push_back(best);
        held = 0;
        for (std::size_t m = best; m < n; ++m) held += inside_[m];
        least = std::numeric_limits<std::int64_t>::max();
        best = 0;
      }
      held += inside_[n];
      const std::size_t p = n + 1;
      if (p >= list_.nodes.size() || list_.uncut.contains(p) || 2 * held < bytes || crossing_[p] > least) continue;
      least = crossing_[p];
      best = p;
    }
    return cuts;
  }

  std::int64_t peak_of(const Cuts& cuts) const {
    std::int64_t across = 0, largest = 0, held = 0;
    for (const Slot& slot : slots_) {
      if (slot.made < 0) continue;
      const auto cut = std::ranges::upper_bound(cuts, index(slot.made));
      if (cut != cuts.end() && *cut <= index(std::max(slot.read, 0))) across += slot.bytes;
    }
    std::size_t next = 0;
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      if (next < cuts.size() && cuts[next] == n) {
        held = 0;
        ++next;
      }
      held += inside_[n];
      largest = std::max(largest, held);
    }
    return across + largest;
  }

  const TangentProgram::Impl& program_;
  const NodeList& list_;
  std::vector<Slot> slots_;
  std::vector<std::int64_t> inside_;    // per node
  std::vector<std::int64_t> crossing_;  // per position: of a cut before that node
};

}  // namespace

Cuts find_cuts(const TangentProgram& program, const std::vector<at::Tensor>& inputs) {
  return Cutter(program.impl(), inputs).best();
}

}  // namespace hesspect
