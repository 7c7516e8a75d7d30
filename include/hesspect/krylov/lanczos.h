// The Lanczos process as a state that can be taken further, step by step.
//
//   A Q_m = Q_m T_m + β_m q_m e_mᵀ,   Q_m = [q_0 … q_{m−1}] [n, m] orthonormal,   T_m symmetric tridiagonal [m, m]
//
// with diagonal α and off-diagonal β. Vectors are sharded over ranks; α and β are doubles, bitwise equal on all ranks.
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
#include <string>
#include <vector>

#include "hesspect/krylov/basis.h"
#include "hesspect/krylov/linear_operator.h"

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

/// The scalars of a run, equal on all ranks: with the stored vectors, all that is needed to go on exactly.
struct LanczosRecord {
  struct Block {
    std::int64_t begin = 0, end = 0;
    bool closed = false;
    double residual_norm = 0;
  };
  std::int64_t n = 0;
  bool full = true;  // re-orthogonalisation
  double breakdown_tolerance = 0;
  double start_norm_sq = 0;
  std::vector<double> alpha, beta, product_norm;  // [m] each; product_norm: ‖A q_j‖
  std::vector<Block> blocks;
  /// Thick restarts, in order.
  struct ThickRestart {
    std::int64_t step = 0;                // after so many steps
    std::vector<double> theta, coupling;  // [kept]: Ritz values, and T's entries between them and the next row
  };
  std::vector<ThickRestart> thick_restarts;
  /// Which rows are stored: [first_row, first_row + rows), numbered through all of the run: a thick restart replaces
  /// all rows by new ones with higher numbers. Without re-orthogonalisation the last ones alone.
  std::int64_t first_row = 0, rows = 0;
  /// Vectors kept at full precision besides, where rows are stored narrower: 0, or the last one or two.
  std::int64_t running = 0;
};
/// As bytes, exactly, and back. @throws InputError for bytes that are no such record
std::string to_bytes(const LanczosRecord& record);
LanczosRecord lanczos_record_from(const std::string& bytes);

/// Stored vectors for `Lanczos::resumed`: this rank's shard of row i (numbered as in the record) of the set, on the
/// CPU, [chunk], of the set's dtype. Not collective.
struct StoredVectors {
  std::function<at::Tensor(std::int64_t row)> basis;
  std::function<at::Tensor(std::int64_t i)> running;
};

/// A Ritz pair of T: its value, the bound on its residual ‖A y − θ y‖ ≤ |β_m s_m|, and where its vector lies.
struct RitzPair {
  double value = 0;
  double residual = 0;
  double first = 0;       // component on the block's start vector
  std::size_t block = 0;  // which of Lanczos::blocks(); the kept ones of a thick restart are of the block after it
};

/// A on the basis as it stands: A Q = Q T + beta · q_next · e_lastᵀ, T [rows, rows] symmetric, row-major: tridiagonal
/// with zeros between blocks, or, after a thick restart, an arrow of the kept Ritz values and then tridiagonal.
struct Projection {
  std::int64_t rows = 0;
  std::vector<double> t;
  double beta = 0;  // 0 where the space is closed, or goes on with a fresh vector: there is no next row then
};

class Lanczos;
/// Called on every rank after each product, with the run so far; not for recorded steps that are taken again.
using StepCallback = std::function<void(const Lanczos&)>;

class Lanczos {
 public:
  /// Steps [begin, end) of one three-term recurrence, a diagonal block of T while no thick restart has come: ended by a
  /// breakdown (closed), by a thick restart, or the one that goes on.
  struct Block {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    bool closed = false;
    double residual_norm = 0;  // β after the block's last step
    std::int64_t size() const { return end - begin; }
  };

  /// Starts at a vector. Collective over op.comm(), which must outlive the run.
  /// @param start_local  [shard().chunk], any nonzero norm, padding zero; copied
  /// @throws NumericalError if the vector is zero or not finite
  Lanczos(LinearOperator& op, const at::Tensor& start_local, const LanczosOptions& options = {});

  /// A run as it was recorded. It starts over at step 0 and takes the recorded steps again without products, giving
  /// bitwise the same α and β, before it goes on with its own: so whatever algorithm drove the run drives it again,
  /// makes the same decisions, and needs no state of its own. Collective.
  ///
  /// Whatever can be asked of the run (alpha, beta, blocks, scale, Ritz pairs, …) is at each step what it was the first
  /// time. The number of ranks may differ from the first run's: recorded α and β are kept as they are.
  /// @param options  basis storage as recorded; re-orthogonalisation must be the record's
  /// @throws Error where record, vectors and operator don't fit together; what `stored` throws (agreed)
  static Lanczos resumed(LinearOperator& op, const LanczosRecord& record, const StoredVectors& stored,
                         const LanczosOptions& options = {});
  /// The run as it stands, its replay included: a record taken while recorded steps are still being taken again is the
  /// whole record. Local.
  LanczosRecord record() const;
  /// The vectors of `record()`, numbered as there: this rank's shard [chunk], aliasing the run's own memory. Local.
  at::Tensor stored_row(std::int64_t row) const;
  at::Tensor running_vector(std::int64_t i) const;
  /// Recorded steps that are still to be taken again.
  std::int64_t replay_left() const;

  /// Takes up to `steps` more steps, one product each. Collective.
  /// @return steps taken: fewer on breakdown, or where n vectors span everything
  /// @throws NumericalError{step, value} on all ranks if a product is not finite; MemoryError (agreed) for the basis
  std::int64_t extend(LinearOperator& op, std::int64_t steps, const StepCallback& on_step = {});

  /// After a breakdown: goes on from the part of a vector that is orthogonal to the basis. Collective. Full
  /// re-orthogonalisation only. Where the record of a resumed run goes on with a next block, that one, whatever the
  /// vector.
  /// @return false where nothing is left of the vector (1e-12 of it in float64, 1.2e-6 in float32; where rows are
  ///         narrower, what their rounding leaves: 1.2e-6 and 8 %), and the run stays as it was
  bool restart(LinearOperator& op, const at::Tensor& start_local);

  /// Thick restart: the basis becomes the kept Ritz vectors and the residual vector, formed in place, and the run goes
  /// on from there; what it had found of the kept pairs it keeps, and the rest of the space is given up. alpha(),
  /// beta() and steps() go on counting. Collective.
  ///
  /// While recorded steps are taken again, the recorded thick restart at this step, if there is one, whatever is to be
  /// kept, and else none: the run then stays as it was. (`extend` too takes those that it comes past.)
  /// @param keep  indices into ritz_pairs(), ascending; fewer than there are rows. Rank 0's count
  /// @throws UsageError unless can_restart_thick(); Error(kInternal) after a breakdown, which leaves nothing to go on
  ///         from
  /// Source: Wu & Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal.
  ///         Appl. 22 (2000)
  void thick_restart(LinearOperator& op, std::span<const std::size_t> keep);
  /// Full re-orthogonalisation, rows of the vectors' own dtype and device.
  bool can_restart_thick() const { return full() && !apart_; }

  /// m: steps (products) so far.
  std::int64_t steps() const { return static_cast<std::int64_t>(alpha_.size()); }
  const std::vector<double>& alpha() const { return alpha_; }  // [m]
  /// [m]: β between rows j and j+1 of T, 0 between blocks; the last is the norm of the residual vector.
  const std::vector<double>& beta() const { return beta_; }
  double beta_last() const { return beta_.empty() ? 0 : beta_.back(); }
  /// The last step found the space invariant (or it is all of Rⁿ).
  bool breakdown() const { return !blocks_.empty() && blocks_.back().closed; }
  /// All n dimensions are used.
  bool complete() const { return rows() >= n_; }
  /// Of T as it stands: steps(), or, after a thick restart, the kept Ritz vectors and the steps since.
  std::int64_t rows() const;
  const std::vector<Block>& blocks() const { return blocks_; }
  /// zᵀz of the first start vector.
  double start_norm_sq() const { return start_norm_sq_; }
  /// max ‖A q_j‖ so far: a lower bound of ‖A‖.
  double scale() const { return scale_; }
  /// What rounding alone adds to a residual: 10 ε of the vectors' dtype times scale(); of float32 with bfloat16 rows,
  /// which leave eigenvalues good to that.
  double rounding() const { return rounding_unit_ * scale_; }
  const LanczosOptions& options() const { return options_; }
  /// Ranks that hold the shards.
  Communicator& comm() const { return *comm_; }
  /// Bytes of the vectors kept.
  std::int64_t basis_bytes() const;

  /// All Ritz pairs of the space as it stands, ascending. Local. Without re-orthogonalisation ghosts are among them:
  /// ghosts.h tells them.
  std::vector<RitzPair> ritz_pairs() const;
  /// Eigenvectors of T, row i that of ritz_pairs()[i]: [rows() · rows()]. Local.
  std::vector<double> ritz_coefficients() const;
  /// A on the basis as it stands. Local. Full re-orthogonalisation only.
  /// @throws Error(kInternal) between a thick restart and the next step: the residual is no multiple of e_lastᵀ there
  Projection projection() const;
  std::int64_t thick_restarts() const { return static_cast<std::int64_t>(thick_.size()); }
  /// False while recorded steps before a recorded thick restart are taken again: their rows are gone, and basis_rows(),
  /// ritz_vector() and orthogonality_loss() throw Error(kInternal).
  bool has_rows() const { return thick_.size() >= recorded_.thick_restarts.size(); }
  /// Rows of the basis as it stands, as matrices for vector_math.h: those of projection(), then, where the space is not
  /// closed, the next one. Local. Full re-orthogonalisation only.
  std::vector<at::Tensor> basis_rows() const;
  /// Q s: the Ritz vector of s, this rank's shard [chunk]. Local. Full re-orthogonalisation only. No better than the
  /// stored rows: good to 2e-3 of its norm with bfloat16, 3e-8 with float32.
  /// @param s  [projection().rows], an eigenvector of T
  at::Tensor ritz_vector(std::span<const double> s) const;
  /// max |(Qᵀ Q − I) g|, g [m] of random signs, over the basis as it is stored, the rows' own rounding included: two
  /// passes over it. Finds the largest entry of |Qᵀ Q − I|, whichever pair of rows has it: at that size where it stands
  /// alone, up to √m times it as a rule where all are alike. Collective. Full re-orthogonalisation only.
  double orthogonality_loss() const;

 private:
  Lanczos(LinearOperator& op, const LanczosOptions& options);

  friend void extend_together(LinearOperator& op, std::span<Lanczos* const> runs, std::int64_t steps,
                              const std::function<void()>& on_step);
  struct Step;
  static void step_together(LinearOperator& op, std::span<Lanczos* const> runs);
  bool full() const { return options_.reorthogonalisation == Reorthogonalisation::kFull; }
  bool narrow() const;
  std::vector<at::Tensor> operands() const;
  std::vector<at::Tensor> recent() const;
  void keep(const at::Tensor& vector, double norm);
  void commit(double alpha, double beta, double product_norm, bool closed);
  bool projected(const Step& step) const;
  void finish(const Step& step, double beta);

  // Recorded steps: lanczos_replay.cpp.
  void load(const StoredVectors& stored);
  bool replaying() const;
  std::int64_t first_row() const;
  void take_again();
  bool begin_recorded_block();
  bool thick_restart_again();
  void begin_thick(LanczosRecord::ThickRestart restart);
  std::vector<double> residual_coefficients() const;

  // T as it stands: lanczos_ritz.cpp.
  struct Segment;
  std::vector<Segment> segments(bool vectors) const;
  std::vector<at::Tensor> stored_head(std::int64_t count) const;

  LanczosOptions options_;
  Communicator* comm_;
  std::int64_t n_;
  Basis basis_;                    // q_0 … q_m; with kNone q_{m−1}, q_m alone. During replay: all recorded rows
  bool apart_;                     // rows are narrower than the vectors, or not on their device
  at::Tensor previous_, current_;  // q_{m−1}, q_m: of their own where `apart_`, else current_ is the last row
  at::Tensor work_;                // [chunk]
  std::vector<double> alpha_, beta_, product_norm_;
  std::vector<Block> blocks_;
  double start_norm_sq_ = 0;
  double scale_ = 0;
  double rounding_unit_ = 0;  // 10 ε
  std::vector<LanczosRecord::ThickRestart> thick_;
  std::int64_t first_row_ = 0;     // number of the basis's first row; with full re-orthogonalisation
  std::size_t segment_begin_ = 0;  // blocks_ from here on are T as it stands
  LanczosRecord recorded_;         // of a resumed run, else empty
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
