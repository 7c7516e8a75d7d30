// The tangent program: an exported program differentiated by rules of our own, in four sweeps over its graph.
//
//   forward   y, y_dot        values, and K tangents at once, node by node
//   head      z_bar, z_bar_dot  the loss in closed form
//   backward  x_bar, x_bar_dot  adjoints and their tangents; those of parameters add up to gradient and products
//
// Values and adjoints do not depend on the vectors: `keep` makes them once for any number of products. Without it a
// product makes them again, all at once (*rebuilt*) or a segment at a time, where only what crosses a cut stays. In
// units of one matrix product per layer: kept 6, rebuilt 8, segments 10; a gradient takes 3.
// A Gauss-Newton product leaves out all terms with an adjoint (Schraudolph 2002).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/core/phases.h"
#include "hesspect/model/program.h"
#include "hesspect/tangent/objective.h"

namespace hesspect {

/// How an op of the program is differentiated; for `inspect`.
struct RuleCount {
  std::string op;
  std::int64_t count = 0;
  bool own = false;  // by a rule of ours; else by LibTorch's autograd, that op alone
};

/// Seconds of an op's nodes in all sweeps so far; on a GPU those that the host took to launch them.
struct OpSeconds {
  std::string op;
  bool own = false;
  double value_s = 0, tangent_s = 0, adjoint_s = 0, adjoint_tangent_s = 0;
  double total_s() const { return value_s + tangent_s + adjoint_s + adjoint_tangent_s; }
};

/// Seconds of all sweeps so far.
struct SweepSeconds {
  double value_s = 0, tangent_s = 0, adjoint_s = 0, adjoint_tangent_s = 0;
  double matrix_products_s = 0;  // part of these: linear layers, products of matrices, convolutions
};

class TangentProgram {
 public:
  /// Borrows program. @param outputs  indices; the first is what the loss is taken of, the others are values alone
  TangentProgram(const Program& program, std::vector<std::size_t> outputs);
  ~TangentProgram();
  TangentProgram(const TangentProgram&) = delete;
  TangentProgram& operator=(const TangentProgram&) = delete;

  const Program& program() const;
  std::vector<RuleCount> rules() const;
  /// Where the time of sweeps went, by op; longest first. The head is "head".
  std::vector<OpSeconds> seconds() const;
  SweepSeconds sweep_seconds() const;
  /// Each node of each sweep from here on is recorded there; nullptr: no longer. Borrows it.
  void record_in(Timeline* timeline) const;
  /// Whether the output that the loss is taken of depends on any parameter.
  bool depends_on_parameters() const;
  /// Whether the derivatives of any op are left to autograd.
  bool uses_fallback() const;
  /// Whether those of this instruction of the program's graph are: it has no rule, its rule has turned down the
  /// arguments that it got in a sweep, or it is no node of the list by itself.
  bool leaves_to_autograd(const Instruction& instruction) const;
  /// The length of the list that the sweeps walk, and whether it may be cut before node p.
  std::size_t nodes() const;
  bool may_cut(std::size_t p) const;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// Where a program is cut into segments: positions in its list of nodes, rising. None: it is not.
using Cuts = std::vector<std::size_t>;

/// Chooses cuts for the least peak memory of a product, from the bytes of each value in one run of the program.
/// @param inputs  of a micro-batch
Cuts find_cuts(const TangentProgram& program, const std::vector<at::Tensor>& inputs);

/// What the objective is taken of: the output with dimension `batch_dim` first, and of that the first `rows`; a
/// negative number: the output as it is.
struct OutputRows {
  std::int64_t batch_dim = 0;
  std::int64_t rows = -1;
};

class Segments;         // hesspect/tangent/segments.h
struct SegmentTensors;  // the same

/// The sweeps of one micro-batch.
class Sweeps {
 public:
  /// Borrows program.
  Sweeps(const TangentProgram& program, std::vector<at::Tensor> inputs, std::shared_ptr<const RowObjective> objective,
         OutputRows rows = {});
  ~Sweeps();
  Sweeps(Sweeps&&) noexcept;
  Sweeps& operator=(Sweeps&&) noexcept;

  /// Makes values and adjoints, which stay.
  /// @param gauss_newton  values alone: products are of the Gauss-Newton matrix
  void keep(bool gauss_newton = false);
  bool is_kept() const;

  /// sums += the gradient of the sum of terms. @param sums [shape] for each parameter
  /// @return the sum of terms
  double add_gradient(const std::vector<at::Tensor>& sums, const Cuts& cuts = {});
  /// products += H v for K vectors.
  /// @param v, products  [K, shape] for each parameter. Where both of a parameter are undefined, v is zero there and
  /// the
  ///                     product is not wanted: sweeps pass over what lies before the first defined one, both ways
  /// @param cuts         where nothing is kept
  void add_products(const std::vector<at::Tensor>& v, const std::vector<at::Tensor>& products,
                    bool gauss_newton = false, const Cuts& cuts = {});

  // A segment at a time, whose parameters the caller brings and takes (hesspect/tangent/segments.h). The program's own
  // are not looked at.

  /// @param vectors  K; 0: a gradient
  void begin_segments(const Segments& segments, std::int64_t vectors, bool gauss_newton,
                      const std::vector<bool>& chosen = {});
  /// For segments that go forwards alone, the last one too, to the output.
  void begin_outputs(const Segments& segments);
  void segment_forwards(std::size_t segment, const SegmentTensors& tensors);
  /// Lets go of what segments first … last have made and no later one reads.
  void let_go_of_inner(std::size_t first, std::size_t last);
  /// Makes the segment's values again, for the last one for the first time, and goes backwards through it.
  void segment_backwards(std::size_t segment, const SegmentTensors& tensors);
  /// @return the sum of terms, where the last segment has gone backwards
  double end_segments();
  /// After all segments have gone forwards: the output that the objective is taken of, as the program has it.
  at::Tensor end_outputs();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
