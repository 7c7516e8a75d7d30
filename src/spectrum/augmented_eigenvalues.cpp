#include "hesspect/spectrum/augmented_eigenvalues.h"

#include <ATen/ATen.h>
#include <ATen/ops/linalg_eigh.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "eigen_lists.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
namespace {

/// Of a given vector's part beside the space, relative to the vector: with less there is nothing to take a product for.
constexpr double kLeastPart = 1e-3;
/// Of its residual within the space, over the tolerance: with more a vector has turned too far.
constexpr double kNear = 5;

at::Tensor as_row(const at::Tensor& vector) { return vector.unsqueeze(0); }

class AugmentedSpace {
 public:
  AugmentedSpace(LinearOperator& op, const Lanczos& run)
      : op_(op), rounding_unit_(run.rounding() / run.t().scale()), steps_(run.steps()) {
    const Projection projection = run.t().projection();
    q_ = static_cast<std::size_t>(projection.rows);
    scale_ = run.t().scale();
    std::vector<at::Tensor> all = run.basis_rows();
    at::Tensor next = all.back()[all.back().size(0) - 1];
    if (all.back().size(0) == 1)
      all.pop_back();
    else
      all.back() = all.back().narrow(0, 0, all.back().size(0) - 1);
    v_ = std::move(all);
    s_.assign(q_, std::vector<double>(q_));
    for (std::size_t i = 0; i < q_; ++i)
      for (std::size_t j = 0; j < q_; ++j) s_[i][j] = projection.t[i * q_ + j];
    f_.push_back(agreed(op.comm(), [&] { return at::empty_like(next); }));
    scale_into(next, projection.beta, f_.back());
    gram_ = {{projection.beta * projection.beta}};
  }

  std::int64_t products() const { return static_cast<std::int64_t>(w_.size()); }
  std::size_t rows() const { return q_ + w_.size(); }
  /// What rounding alone adds to a residual.
  double rounding() const { return rounding_unit_ * scale_; }

  /// Takes what a vector has beside the space as a further row, at the price of a product. Collective.
  /// @return false where that is too little
  bool add(const at::Tensor& vector, double least) {
    at::Tensor w = agreed(op_.comm(), [&] { return vector.clone(); });
    const double before = std::sqrt(sum(norm_sq(w)));
    if (!(before > 0)) return false;
    double after = before;
    for (int pass = 0; pass < 3; ++pass) {
      const double left = orthogonalise(w).second;
      const bool settled = left > 0.7 * after;
      after = left;
      if (settled) break;
    }
    if (!(after > least * before)) return false;
    scale_into(w, 1 / after, w);

    at::Tensor f = agreed(op_.comm(), [&] { return at::zeros_like(w); });
    op_.apply(w, f);
    const double norm = std::sqrt(sum(norm_sq(f)));
    if (!std::isfinite(norm))
      throw NumericalError(steps_ + products(), norm, "a product is not finite, in a search for eigenvalues");
    scale_ = std::max(scale_, norm);

    // What is known of earlier products gives up its part along the new row.
    const std::vector<double> along = dots_with(f_, w);
    for (std::size_t i = 0; i < f_.size(); ++i) {
      const double c[] = {along[i]};
      const at::Tensor row[] = {as_row(w)};
      subtract(row, c, f_[i]);
    }
    for (std::size_t i = 0; i < f_.size(); ++i)
      for (std::size_t j = 0; j < f_.size(); ++j) gram_[i][j] -= along[i] * along[j];

    w_.push_back(w);
    std::vector<double> column = orthogonalise(f).first;
    const std::vector<double> more = orthogonalise(f).first;
    for (std::size_t i = 0; i < column.size(); ++i) column[i] += more[i];
    for (std::size_t i = 0; i + 1 < column.size(); ++i) s_[i].push_back(column[i]);
    s_.push_back(column);

    f_.push_back(f);
    const std::vector<double> products = dots_with(f_, f);
    for (std::size_t i = 0; i + 1 < f_.size(); ++i) gram_[i].push_back(products[i]);
    gram_.push_back(products);
    return true;
  }

  /// Takes a pair's residual as a further row. Collective.
  bool add_residual(std::size_t pair) {
    at::Tensor r = agreed(op_.comm(), [&] { return at::empty_like(f_.front()); });
    std::vector<at::Tensor> rows;
    for (const at::Tensor& f : f_) rows.push_back(as_row(f));
    combine_into(rows, tail(pair), r);
    return add(r, 0);
  }

  /// All Ritz pairs, ascending, rank 0's on every rank. Collective.
  const std::vector<RitzPair>& solve() {
    const auto m = static_cast<std::int64_t>(rows());
    pairs_.assign(rows(), {});
    coefficients_.assign(rows() * rows(), 0);
    agree(op_.comm(), [&] {
      if (op_.comm().rank() != 0) return;
      const at::Tensor matrix = at::zeros({m, m}, at::kDouble);
      auto entries = matrix.accessor<double, 2>();
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < m; ++j)
          entries[i][j] = (s_[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] +
                           s_[static_cast<std::size_t>(j)][static_cast<std::size_t>(i)]) /
                          2;
      const auto [values, columns] = at::linalg_eigh(matrix, "L");
      const at::Tensor rows_of = columns.t().contiguous();
      std::copy_n(rows_of.data_ptr<double>(), coefficients_.size(), coefficients_.begin());
      for (std::size_t i = 0; i < rows(); ++i) pairs_[i].value = values.data_ptr<double>()[i];
    });
    coefficients_ = op_.comm().of_rank0(std::move(coefficients_));
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      const std::vector<double> g = tail(i);
      double square = 0;
      for (std::size_t a = 0; a < g.size(); ++a)
        for (std::size_t b = 0; b < g.size(); ++b) square += g[a] * gram_[a][b] * g[b];
      pairs_[i].residual = std::sqrt(std::max(0.0, square));
      pairs_[i].first = coefficients_[i * rows()];
    }
    return pairs_ = op_.comm().of_rank0(std::move(pairs_));
  }

  const std::vector<RitzPair>& solved() const { return pairs_; }

  at::Tensor vector(std::size_t pair) const {
    at::Tensor y = at::empty_like(f_.front());
    combine_into(all_rows(), std::span(coefficients_).subspan(pair * rows(), rows()), y);
    return y;
  }

 private:
  double sum(double mine) const { return op_.comm().sum(mine); }

  std::vector<at::Tensor> all_rows() const {
    std::vector<at::Tensor> rows = v_;
    for (const at::Tensor& w : w_) rows.push_back(as_row(w));
    return rows;
  }

  std::vector<double> dots_with(const std::vector<at::Tensor>& vectors, const at::Tensor& w) const {
    std::vector<at::Tensor> rows;
    for (const at::Tensor& vector : vectors) rows.push_back(as_row(vector));
    std::vector<double> sums = op_.comm().sum(dots(rows, w));
    sums.pop_back();  // w · w
    return sums;
  }

  /// x −= [V W][V W]ᵀ x. @return the coefficients, and the norm of what is left
  std::pair<std::vector<double>, double> orthogonalise(at::Tensor& x) const {
    const std::vector<at::Tensor> rows = all_rows();
    std::vector<double> c = op_.comm().sum(dots(rows, x));
    c.pop_back();
    const double left = subtract(rows, c, x);
    return {std::move(c), std::sqrt(sum(left))};
  }

  /// A pair's coefficients on what F belongs to: the last row of V, and W.
  std::vector<double> tail(std::size_t pair) const {
    const auto begin = coefficients_.begin() + static_cast<std::ptrdiff_t>(pair * rows() + q_ - 1);
    return {begin, begin + static_cast<std::ptrdiff_t>(w_.size() + 1)};
  }

  LinearOperator& op_;
  double rounding_unit_, scale_ = 0;  // scale_: the largest product of a unit vector
  std::int64_t steps_;                // of the run
  std::size_t q_ = 0;
  std::vector<at::Tensor> v_;              // matrices [b_k, chunk]
  std::vector<at::Tensor> w_, f_;          // [chunk]; f_ has one more
  std::vector<std::vector<double>> s_;     // [rows][rows]: [V W]ᵀ A [V W]
  std::vector<std::vector<double>> gram_;  // [w + 1][w + 1]: FᵀF
  std::vector<RitzPair> pairs_;
  std::vector<double> coefficients_;  // [pairs][rows]
};

}  // namespace

std::vector<std::size_t> near_eigenvectors(const Lanczos& run, std::span<const at::Tensor> vectors, double rtol) {
  std::vector<std::size_t> near;
  const Projection projection = run.t().projection();
  const auto q = static_cast<std::size_t>(projection.rows);
  double scale = 0;
  for (const RitzPair& pair : run.t().ritz_pairs()) scale = std::max(scale, std::abs(pair.value));
  const std::vector<at::Tensor> rows = run.basis_rows();
  for (std::size_t k = 0; k < vectors.size(); ++k) {
    const std::vector<double> c = run.comm().sum(dots(rows, vectors[k]));  // Vᵀv, v₊ᵀv, v · v
    std::vector<double> h(q);
    double norm_sq = 0, along = 0, left = 0;
    for (std::size_t i = 0; i < q; ++i) {
      for (std::size_t j = 0; j < q; ++j) h[i] += projection.t[i * q + j] * c[j];
      if (i + 1 == q && c.size() > q + 1) h[i] += projection.beta * c[q];
      norm_sq += c[i] * c[i];
      along += c[i] * h[i];
    }
    if (!(norm_sq > 0)) continue;
    for (std::size_t i = 0; i < q; ++i) left += std::pow(h[i] - along / norm_sq * c[i], 2);
    if (std::sqrt(left / norm_sq) <= kNear * rtol * scale) near.push_back(k);
  }
  return near;
}

bool can_augment(const Lanczos& run, const at::TensorOptions& vectors) {
  const Tridiagonal& t = run.t();
  const BasisOptions& basis = run.options().basis;
  return run.full() && run.can_restart_thick() && !basis.on_host && t.steps() >= 2 && t.blocks.size() == 1 &&
         !t.breakdown() && t.thick_restarts.empty() && run.replay_left() == 0 &&
         run.basis_rows().back().scalar_type() == c10::typeMetaToScalarType(vectors.dtype());
}

EigenResult augmented_eigenvalues(LinearOperator& op, const Lanczos& run, std::span<const at::Tensor> starts,
                                  const EigenOptions& options, std::int64_t most, VectorSource* vectors,
                                  const std::function<void()>& on_step) {
  const auto space = std::make_shared<AugmentedSpace>(op, run);
  const WantedCounts wanted = wanted_counts(op.shard().n, options);
  const auto now = [&] { return listed(space->solve(), wanted, options, space->rounding(), /*complete=*/false); };
  const auto all = [](const EigenResult& result) {
    std::vector<const EigenEstimate*> pairs;
    for (const auto* list : {&result.top, &result.bottom, &result.magnitude})
      for (const EigenEstimate& one : *list) pairs.push_back(&one);
    return pairs;
  };
  const auto step = [&] {
    if (on_step) on_step();
  };
  EigenResult result = now();
  const std::vector<std::size_t> near = near_eigenvectors(run, starts, options.rtol);
  for (std::size_t i = 0; i < starts.size() && !result.converged && space->products() < most; ++i) {
    const auto pairs = all(result);
    const bool has_converged = i < pairs.size() && pairs[i]->converged;
    if (op.comm().of_rank0(has_converged || std::ranges::find(near, i) == near.end())) continue;
    if (!space->add(starts[i], kLeastPart)) continue;
    step();
    result = now();
  }
  while (!op.comm().of_rank0(result.converged) && space->products() < most) {
    // The one that is furthest from it.
    const std::vector<std::size_t> indices = select_wanted(space->solve(), wanted, /*complete=*/false).all();
    const auto pairs = all(result);
    std::size_t worst = 0;
    for (std::size_t i = 0; i < std::min(pairs.size(), indices.size()); ++i)
      if (pairs[i]->residual > pairs[worst]->residual) worst = i;
    if (!space->add_residual(indices[op.comm().of_rank0(worst)])) break;
    step();
    result = now();
  }
  result.steps = run.steps() + space->products();
  result.method = "augmented lanczos";
  const std::vector<std::size_t> indices = select_wanted(space->solve(), wanted, /*complete=*/false).all();
  std::size_t place = 0;
  for (auto* list : {&result.top, &result.bottom, &result.magnitude})
    for (EigenEstimate& one : *list) one.true_residual = space->solved()[indices[place++]].residual;
  if (vectors != nullptr) {
    *vectors = [space, indices](std::size_t i) { return space->vector(indices.at(i)); };
  }
  return result;
}

}  // namespace hesspect
