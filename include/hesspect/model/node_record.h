// What each node of a program's run computed, to name the one where numbers stop being finite.
//
// Purpose: a loss, a gradient or a product with the Hessian that is NaN says nothing of its cause. Run once more on the
// rows in question, the program shows the first node that made it so. Limits: for error paths alone; every value stays
// alive, and each op is differentiated by itself.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "hesspect/model/program.h"

namespace hesspect {

struct NodeSteps;

/// Records the last run of a program while it lives. One record at a time.
class NodeRecord {
 public:
  /// Borrows program.
  explicit NodeRecord(Program& program);
  ~NodeRecord();
  NodeRecord(const NodeRecord&) = delete;
  NodeRecord& operator=(const NodeRecord&) = delete;

  /// The node that made a loss, its gradient or else its second derivative not finite, and for well-known ops why:
  /// "node 'norm' (aten.norm.Scalar, from …) has a second derivative that is not finite: …".
  /// For values it is the node that made the first NaN (or infinity) on the way to the loss; for derivatives the one
  /// whose own are not finite for the finite adjoints that reach it.
  /// @param loss  a scalar, computed from the outputs of the recorded run with autograd on; its graph is kept
  /// @return "" where no node can be blamed
  std::string first_non_finite(const at::Tensor& loss) const;

 private:
  Program& program_;
  std::unique_ptr<NodeSteps> steps_;
};

}  // namespace hesspect
