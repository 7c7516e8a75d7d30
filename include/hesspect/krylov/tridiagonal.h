// The small matrix T that a Lanczos run has made of A, and all that is read off T alone: no vector, no message.
//
//   A Q = Q T + β_m q_next e_lastᵀ,   Q [n, rows] orthonormal,   T [rows, rows] symmetric
//
// T is tridiagonal, with diagonal α and off-diagonal β, as long as one three-term recurrence goes on. A breakdown ends
// a diagonal block of it, and a fresh vector begins the next. A thick restart makes T an arrow, the kept Ritz values
// and their coupling to the next row, and tridiagonal from there.
//
//   Lanczos run(op, start);
//   run.extend(op, 40);
//   const RitzPair top = run.t().ritz_pairs().back();  // an eigenvalue within top.residual of top.value
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace hesspect {

/// A Ritz pair of T: its value, the bound on its residual ‖A y − θ y‖ ≤ |β_m s_m|, and where its vector lies.
struct RitzPair {
  double value = 0;
  double residual = 0;
  double first = 0;       // component on the block's start vector
  std::size_t block = 0;  // which of Tridiagonal::blocks; the kept ones of a thick restart are of the block after it
};

/// A on the basis as it stands: A Q = Q T + beta · q_next · e_lastᵀ, with T as a dense matrix.
struct Projection {
  std::int64_t rows = 0;
  std::vector<double> t;  // [rows · rows], row-major
  double beta = 0;        // 0 where the space is closed, or goes on with a fresh vector: there is no next row then
};

/// T with its history. A value: what a run goes through does not change a copy.
struct Tridiagonal {
  /// Steps [begin, end) of one three-term recurrence: ended by a breakdown (closed), by a thick restart, or going on.
  struct Block {
    std::int64_t begin = 0, end = 0;
    bool closed = false;
    double residual_norm = 0;  // β after the block's last step
    std::int64_t size() const { return end - begin; }
    bool operator==(const Block&) const = default;
  };
  struct ThickRestart {
    std::int64_t step = 0;                // after so many steps
    std::vector<double> theta, coupling;  // [kept]: Ritz values, and T's entries between them and the next row
    bool operator==(const ThickRestart&) const = default;
  };

  std::int64_t n = 0;                // order of A
  double start_norm_sq = 0;          // zᵀz of the first start vector z
  std::vector<double> alpha;         // [m], for all m steps so far
  std::vector<double> beta;          // [m], 0 between blocks; the last is the norm of the residual vector
  std::vector<double> product_norm;  // [m], ‖A q_j‖
  std::vector<Block> blocks = {{}};
  std::vector<ThickRestart> thick_restarts;
  bool operator==(const Tridiagonal&) const = default;

  // How T grows.

  void add_step(double next_alpha, double next_beta, double norm, bool closes);
  /// After a breakdown: T goes on from a fresh vector.
  void begin_block();
  /// T becomes what is kept, `kept.step` set to steps().
  void restart_thick(ThickRestart kept);

  // T as it stands.

  std::int64_t steps() const { return static_cast<std::int64_t>(alpha.size()); }
  /// T has as many rows as there are steps, or, after a thick restart, kept Ritz vectors and steps since.
  std::int64_t rows() const;
  /// The number of T's first row, where all rows ever are numbered: those that a thick restart puts in the place of
  /// all others (T's rows and the next one) have the next higher numbers.
  std::int64_t first_row() const;
  /// The last step found the space invariant (or it is all of Rⁿ).
  bool breakdown() const { return blocks.back().closed; }
  /// All n dimensions are used.
  bool complete() const { return rows() >= n; }
  /// max ‖A q_j‖ so far: a lower bound of ‖A‖.
  double scale() const;
  /// The first of the blocks that make up T: those before it have gone by thick restarts.
  std::size_t first_block() const;

  /// All Ritz pairs of the space, ascending. Without re-orthogonalisation ghosts are among them: ghosts.h tells them.
  std::vector<RitzPair> ritz_pairs() const;
  /// Eigenvectors of T, those of the pairs ritz_pairs()[i] for all i of `indices`: [indices · rows()].
  std::vector<double> ritz_coefficients(std::span<const std::size_t> indices) const;
  /// What each row of T holds of the residual vector: A Q = Q T + q_next cᵀ. [rows()]
  std::vector<double> residual_coefficients() const;
  /// @throws Error(kInternal) between a thick restart and the next step: c is no multiple of e_last there
  Projection projection() const;
};

}  // namespace hesspect
