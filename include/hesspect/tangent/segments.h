// A program's segments, for sweeps whose parameters come and go a segment at a time.
//
// The outer loop goes over segments and the inner one over micro-batches, so that a segment's parameters are fetched
// twice a product however many micro-batches there are:
//
//   for (Sweeps& one : batches) one.begin_segments(segments, K, false);
//   for s = 0 … S - 2:  for (Sweeps& one : batches) one.segment_forwards(s, {values, v, {}});
//   for s = S - 1 … 0:  for (Sweeps& one : batches) one.segment_backwards(s, {values, v, sums});
//   for (Sweeps& one : batches) one.end_segments();
//
// Between the calls a micro-batch holds what crosses the cuts, and nothing of any parameter. What crosses the cuts
// between some segments alone can be let go of (let_go_of_inner), and is there again when they have been run forwards
// once more.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "hesspect/tangent/tangent_program.h"

namespace hesspect {

/// What a segment works with, by the parameters of the program's layout; undefined where it does not read them.
struct SegmentTensors {
  /// [shape], in the run's dtype; behind the layout's, those that are held fixed (Program::brought).
  std::vector<at::Tensor> values;
  std::vector<at::Tensor> v = {};  // [K, shape]; none for a gradient; an undefined one is zero
  /// [K, shape], of a gradient [1, shape], to be added to; none on the way forwards; an undefined one is not wanted.
  std::vector<at::Tensor> sums = {};
  std::function<void()> between_nodes = {};  // for messages that only calls move on
};

/// Whether an output is made from parameters at all, whatever becomes of gradients on the way.
bool reads_parameters(const Program& program, std::size_t output);

class Segments {
 public:
  /// @param cuts  rising; none: one segment
  /// @param crossing_on_host  what crosses the cuts is in host memory while no segment that reads it is worked on
  Segments(const TangentProgram& program, Cuts cuts, bool crossing_on_host = false);

  bool crossing_on_host() const { return crossing_on_host_; }
  std::size_t size() const { return read_.size(); }
  const Cuts& cuts() const { return cuts_; }
  /// The parameters that a segment's nodes read, by their places among what is brought, ascending.
  const std::vector<std::size_t>& read_in(std::size_t segment) const { return read_[segment]; }
  /// Of each of so many parameters, the segments that read it, ascending.
  std::vector<std::vector<std::size_t>> readers(std::size_t parameters) const;
  /// Which segments a product of some parameters alone goes back through: those with a node that depends on one of
  /// them. None: the objective depends on none of them. @param chosen  of the program's layout
  static std::vector<bool> reached(const TangentProgram& program, const Cuts& cuts, const std::vector<bool>& chosen);

 private:
  Cuts cuts_;
  bool crossing_on_host_;
  std::vector<std::vector<std::size_t>> read_;
};

}  // namespace hesspect
