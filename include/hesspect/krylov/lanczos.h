// The Lanczos process as a state that can be taken further, step by step.
//
//   A Q_m = Q_m T_m + β_m q_m e_mᵀ,   Q_m = [q_0 … q_{m−1}] [n, m] orthonormal,   T_m symmetric tridiagonal [m, m]
//
// The process owns the vectors, which are sharded over ranks; T (tridiagonal.h) is a value that it hands out, of
// doubles that are bitwise equal on all ranks. A run can be written down and taken again (lanczos_record.h).
//
//   Lanczos run(op, start);
//   run.extend(op, 40);
//   const std::size_t top[] = {39};
//   const at::Tensor y = run.ritz_vector(run.t().ritz_coefficients(top));  // this rank's shard
//
// Re-orthogonalisation is classical Gram-Schmidt twice ("twice is enough", Giraud, Langou & Rozložník 2005), first
// against q_{m−1} and q_m, then against the whole basis, and again where that found more than rounding: two passes over
// it and three small all-reduces per step.
//
// Rows may be stored narrower than the vectors (BasisOptions). q_{m−1} and q_m are then kept at full precision besides:
// the three-term recurrence never sees the rows' rounding, only what re-orthogonalisation takes away does. With u the
// rows' unit roundoff (2⁻⁹ for bfloat16) Q is then orthogonal to u/√n where vectors are spread over all entries, to u
// at worst, and Ritz values are off by the order of its square: top eigenvalues by 5e-7 of the largest at most, where
// it was measured. A step takes further passes where two leave too much.
//
// A single start vector sees one copy of a multiple eigenvalue. Where the Krylov space closes (breakdown), `restart`
// goes on with a fresh vector in what is left: T is then block diagonal.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "hesspect/krylov/basis.h"
#include "hesspect/krylov/lanczos_record.h"
#include "hesspect/krylov/linear_operator.h"
#include "hesspect/krylov/tridiagonal.h"

namespace hesspect {

enum class Reorthogonalisation {
  kFull,  // against every basis vector; the basis is kept
  kNone,  // three vectors kept; ghosts (spurious copies of converged eigenvalues) appear
};

struct LanczosOptions {
  Reorthogonalisation reorthogonalisation = Reorthogonalisation::kFull;
  /// Breakdown where β ≤ tolerance · max ‖A q‖. 0: 1e-12 in float64, 10 ε = 1.2e-6 in float32 and with bfloat16 rows,
  /// whose rounding keeps β of a closed space from falling further.
  double breakdown_tolerance = 0;
  /// With kNone the vectors are kept as they are, on their device, whatever this says.
  BasisOptions basis = {};
};

class Lanczos;
/// Called on every rank after each product, with the run so far; not for recorded steps that are taken again.
using StepCallback = std::function<void(const Lanczos&)>;

class Lanczos {
 public:
  /// Starts at a vector. Collective over op.comm(), which must outlive the run.
  /// @param start_local  [shard().chunk], any nonzero norm, padding zero; copied
  /// @throws NumericalError if the vector is zero or not finite
  Lanczos(LinearOperator& op, const at::Tensor& start_local, const LanczosOptions& options = {});

  /// A run as it was recorded, at step 0, with its recorded steps to take again. Collective. The number of ranks may
  /// differ from the first run's.
  /// @param options  basis storage as recorded; re-orthogonalisation must be the record's
  /// @throws Error where record, vectors and operator don't fit together; what `stored` throws (agreed)
  static Lanczos resumed(LinearOperator& op, const LanczosRecord& record, const StoredVectors& stored,
                         const LanczosOptions& options = {});
  /// The run as it stands: while recorded steps are still being taken again, the whole record that it came from. Local.
  LanczosRecord record() const;
  /// The vectors of `record()`, aliasing the run's own memory, for as long as it stays where it is. Local.
  StoredVectors stored() const;
  /// Recorded steps that are still to be taken again.
  std::int64_t replay_left() const { return replay_.steps_left(t_); }

  /// Takes up to `steps` more steps, one product each. Collective.
  /// @return steps taken: fewer on breakdown, or where n vectors span everything
  /// @throws NumericalError{step, value} on all ranks if a product is not finite; MemoryError (agreed) for the basis
  std::int64_t extend(LinearOperator& op, std::int64_t steps, const StepCallback& on_step = {});

  /// After a breakdown: goes on from the part of a vector that is orthogonal to the basis. Collective. Full
  /// re-orthogonalisation only. Where the record of a resumed run goes on with a next block, that one, whatever the
  /// vector.
  /// @return false where nothing is left of the vector (1e-12 of it in float64, 1.2e-6 in float32; where rows are
  ///         narrower, what their rounding leaves: 1.2e-6 and 8 %), and the run stays as it was
  bool restart(const at::Tensor& start_local);

  /// Thick restart: the basis becomes the kept Ritz vectors and the residual vector, formed in place, and the run goes
  /// on from there; what it had found of the kept pairs it keeps, and the rest of the space is given up. α, β and
  /// steps() go on counting. Collective.
  ///
  /// While recorded steps are taken again, the recorded thick restart at this step, if there is one, whatever is to be
  /// kept, and else none: the run then stays as it was. (`extend` too takes those that it comes past.)
  /// @param keep  indices into t().ritz_pairs(), ascending; fewer than there are rows. Rank 0's count
  /// @throws UsageError unless can_restart_thick(); Error(kInternal) after a breakdown, which leaves nothing to go on
  ///         from
  /// Source: Wu & Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal.
  ///         Appl. 22 (2000)
  void thick_restart(std::span<const std::size_t> keep);
  /// Full re-orthogonalisation, rows of the vectors' own dtype and device.
  bool can_restart_thick() const { return full() && !apart_; }

  const Tridiagonal& t() const { return t_; }
  std::int64_t steps() const { return t_.steps(); }
  /// What rounding alone adds to a residual: 10 ε of the vectors' dtype times t().scale(); of float32 with bfloat16
  /// rows, which leave eigenvalues good to that.
  double rounding() const { return rounding_unit_ * t_.scale(); }
  const LanczosOptions& options() const { return options_; }
  /// Full re-orthogonalisation.
  bool full() const { return options_.reorthogonalisation == Reorthogonalisation::kFull; }
  /// Ranks that hold the shards.
  Communicator& comm() const { return *comm_; }
  /// Bytes of the vectors kept.
  std::int64_t basis_bytes() const;

  // What is read off the vectors needs full re-orthogonalisation, and throws Error(kInternal) while recorded steps
  // before a recorded thick restart are taken again: their rows are gone.

  /// Rows of the basis as it stands, as matrices for vector_math.h: those of T, then, where the space is not closed,
  /// the next one. Local.
  std::vector<at::Tensor> basis_rows() const;
  /// Q s: the Ritz vector of s, this rank's shard [chunk]. Local. No better than the stored rows: good to 2e-3 of its
  /// norm with bfloat16, 3e-8 with float32.
  /// @param s  [t().rows()], an eigenvector of T; or of an earlier T, fewer rows, which further steps have left as they
  ///           were (a thick restart has not)
  at::Tensor ritz_vector(std::span<const double> s) const;
  /// max |(Qᵀ Q − I) g|, g [m] of random signs, over the basis as it is stored, the rows' own rounding included: two
  /// passes over it. Finds the largest entry of |Qᵀ Q − I|, whichever pair of rows has it: at that size where it stands
  /// alone, up to √m times it as a rule where all are alike. Collective.
  double orthogonality_loss() const;

 private:
  Lanczos(LinearOperator& op, const LanczosOptions& options);

  friend void extend_together(LinearOperator& op, std::span<Lanczos* const> runs, std::int64_t steps,
                              const std::function<void()>& on_step);
  struct Step;
  static void step_together(LinearOperator& op, std::span<Lanczos* const> runs);
  bool narrow() const;
  std::vector<at::Tensor> operands() const;
  std::vector<at::Tensor> recent() const;
  void keep(const at::Tensor& vector, double norm);
  bool projected(const Step& step) const;
  void finish(const Step& step, double beta);

  void load(const LanczosRecord& record, const StoredVectors& stored);
  /// What the stored rows belong to: T, or the whole record while steps of it are still to be taken again.
  const Tridiagonal& stored_t() const { return replay_.over(t_) ? t_ : replay_.recorded(); }
  std::int64_t first_row() const;
  std::int64_t running() const;
  std::vector<at::Tensor> stored_head(std::int64_t count) const;

  LanczosOptions options_;
  Communicator* comm_;
  Basis basis_;                    // q_0 … q_m; with kNone q_{m−1}, q_m alone. During replay: all recorded rows
  bool apart_;                     // rows are narrower than the vectors, or not on their device
  at::Tensor previous_, current_;  // q_{m−1}, q_m: of their own where `apart_`, else current_ is the last row
  at::Tensor work_;                // [chunk]
  double rounding_unit_ = 0;       // 10 ε
  Tridiagonal t_;
  Replay replay_;
};

/// Takes each run up to `steps` more steps in lock-step: one apply_block for all runs that go on, and one small
/// all-reduce a pass for all their sums. Each run's α and β are bitwise those of `extend` alone (on the CPU). Runs that
/// break down, or that still have recorded steps to take, fall out or come in as they may. Collective over op.comm().
/// @param runs     over op, distinct
/// @param on_step  called on every rank after each joint step, when every run is between two of its steps
/// @throws as Lanczos::extend
void extend_together(LinearOperator& op, std::span<Lanczos* const> runs, std::int64_t steps,
                     const std::function<void()>& on_step = {});

}  // namespace hesspect
