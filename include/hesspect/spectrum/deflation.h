// The trace by Hutchinson's estimator on what a Krylov space leaves over.
//
// Let V [n, r] be all rows of a Lanczos basis but the last, P = I − VVᵀ. Then
//   tr H = tr(VᵀHV) + tr(PHP),
// the first part is in the run's T, and of the second a product Hz with an independent probe gives a sample zᵀPHPz
// without a product of its own: HV = QT is known, so that zᵀPHPz and ‖PHPz‖² follow from zᵀHz, ‖Hz‖² and Qᵀz. So the
// products may be anyone's, taken before the space was there, and the correction is a pass over the basis. The sum is
// unbiased for any V that is independent of z; its variance is 2(‖PHP‖_F² − Σ(PHP)_ii²) for Rademacher probes.
//
// Per layer l the same with diag(H) = diag(V T_V Vᵀ) + 2 diag(q_r (Vt)ᵀ) + diag(PHP), q_r the last row and t its
// coupling to V: samples are (z ∘ PHPz) summed over l.
//
// Source: Meyer, Musco, Musco & Woodruff 2021 (deflated Hutchinson); Chen & Hallman, Krylov-aware stochastic trace
// estimation, SIAM J. Matrix Anal. Appl. 44 (2023); Persson, Cortinovis & Kressner 2022 (adaptive split)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "hesspect/krylov/lanczos.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// Where the parameter tensors begin in the flat vector: [layers + 1], the last is n. Empty: no layers are asked for.
using LayerOffsets = std::vector<std::int64_t>;

/// Σ over each layer of a_i b_i, over all ranks' shards, in double. Collective.
/// @param a, b  [chunk]
std::vector<double> layer_dots(Communicator& comm, const Shard& shard, const LayerOffsets& offsets, const at::Tensor& a,
                               const at::Tensor& b);

/// What a product Hz tells of the trace. Collective.
TraceSample trace_sample(const LinearOperator& op, const LayerOffsets& offsets, std::int64_t probe, const at::Tensor& z,
                         const at::Tensor& hz);

class KrylovDeflation {
 public:
  /// Deflates the basis of a run as it stands; the run must outlive this and not go on. Collective.
  KrylovDeflation(const LinearOperator& op, const Lanczos& run, const LayerOffsets& offsets);

  /// r: dimensions deflated.
  std::int64_t rank() const { return rank_; }
  /// tr(VᵀHV), of the rows as they are stored.
  double captured() const { return captured_; }
  /// What the space knows of ‖H‖²_F = ‖VᵀHV‖²_F + 2 ‖PHV‖²_F + ‖PHP‖²_F: the first two, by T alone.
  double captured_sq() const;
  /// [layers] diag(V T_V Vᵀ) + 2 diag(q_r (Vt)ᵀ), summed over each layer.
  const std::vector<double>& captured_layers() const { return layers_; }

  /// Samples of what is left, in one pass over the basis, or two where layers are asked for; bitwise what each gives
  /// alone (on the CPU). Collective.
  /// @param z  their probes, [chunk] each, distinct, independent of the run
  std::vector<DeflatedSample> deflated(std::span<const TraceSample> samples, std::span<const at::Tensor> z) const;
  /// P H P z for z and Hz: for the diagonal. Collective. @return [chunk]
  at::Tensor remainder(const at::Tensor& z, const at::Tensor& hz) const;
  /// The deflated part of the diagonal itself: diag(V T_V Vᵀ) + 2 q_r ∘ (Vt), [chunk]. Local.
  at::Tensor captured_diagonal() const;

 private:
  struct Split;
  std::vector<Split> split(std::span<const at::Tensor> z) const;
  void subtract_from(std::span<at::Tensor> vectors, std::span<const Split> splits) const;
  double entry(std::int64_t i, std::int64_t j) const;                      // of T
  std::int64_t taken_rows() const { return closed_ ? rank_ : rank_ + 1; }  // V and q_r
  std::vector<double> captured_over(const LayerOffsets& offsets) const;
  template <class Use>
  void for_each_piece(Use&& use) const;

  const LinearOperator& op_;
  LayerOffsets offsets_;
  std::vector<at::Tensor> all_;  // rows of the basis, stacked: V, q_r, and the next one
  Projection projection_;
  bool closed_ = false;  // an invariant space: V is all of it, and PHV = 0
  std::int64_t rank_ = 0;
  double captured_ = 0;
  std::vector<double> layers_;
};

/// What a run's first rows would leave of ‖PHP‖_F² and of the trace, for every number of them, from a few samples taken
/// before: says how far the Lanczos run is worth taking for the trace's sake.
class DeflationForecast {
 public:
  /// @param z  the samples' probes, [chunk] each
  DeflationForecast(std::vector<TraceSample> samples, std::vector<at::Tensor> z);

  /// Takes in what the run has got since the last call: a pass over the new rows. Collective.
  void update(const Lanczos& run);
  /// Products in all, were the run to end after `steps`: these, and the probes that the interval would take then.
  /// @param rtol  half width asked for, over the trace or over `floor` where that is more; > 0
  /// @param quantile  of the normal distribution
  double products_at(std::int64_t steps, double rtol, double quantile, double floor = 0) const;
  /// Whether the last `window` steps have saved at least as many products as they took. False after a thick restart,
  /// for later steps give up as much as they bring.
  bool pays(std::int64_t window, double rtol, double quantile, double floor = 0) const;

 private:
  /// The mean over samples, after a number of steps.
  struct Point {
    double remainder_sq = 0;  // ‖PHPz‖²
    double trace = 0;
  };

  std::vector<TraceSample> samples_;
  std::vector<at::Tensor> z_;
  std::vector<std::vector<double>> d_;  // [samples][rows]: q_jᵀz
  std::vector<Point> points_;           // [steps + 1]
  bool thick_ = false;
};

}  // namespace hesspect
