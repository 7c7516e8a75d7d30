#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/trace.h"
#include "vector_blocks.h"

namespace hesspect {
namespace {

constexpr std::int64_t kFewestNystrom = 8;
/// The interval is looked at after each round, which makes it too narrow, as in trace.cpp.
constexpr double kStoppingEarly = 1.1;
/// The shift over ε‖AΩ‖_F/√n: the first, and beyond how many times that a matrix is indefinite, not rounded.
constexpr double kFirstShift = 10, kMostShift = 1e4;

// With Ω [n, m] random vectors of norm √n, Y = A Ω = Q R, H = ΩᵀY and K = ΩᵀΩ, Nyström's A⟨Ω⟩ = Y H⁻¹ Yᵀ. Without
// vector i it is A⟨Ω⟩ − (Y H⁻¹e_i)(Y H⁻¹e_i)ᵀ / (H⁻¹)_ii, and what it leaves of ω_i is 1 / (H⁻¹)_ii, for A⟨Ω⟩ω_i is
// A ω_i. Seen from the complement of the others' span, of dimension n − m + 1, ω_i points in a random direction, at the
// distance² 1 / (K⁻¹)_ii. So the estimate without vector i is
//
//   tr(H⁻¹YᵀY) − (H⁻¹YᵀYH⁻¹)_ii / (H⁻¹)_ii + (n − m + 1)(K⁻¹)_ii / (H⁻¹)_ii.
//
// H is as ill-conditioned as A: all is taken of A + νI, ν of the size of rounding, of whose trace νn is taken off
// again. Then H_ν = H + νK = CᵀC, and YᵀY becomes RᵀR + 2νH + ν²K. All of it is in R, QᵀΩ (H = ΩᵀQR) and K, to which
// further vectors add rows and columns: of long vectors Q alone is kept.
class XNysTrace : public SketchingEstimator {
 public:
  using SketchingEstimator::SketchingEstimator;

  void round(std::int64_t vectors) {
    const std::int64_t known = q_.rows();
    const auto old = static_cast<std::int64_t>(r_.size());
    for_blocks(vectors, [&](std::int64_t first, std::int64_t size) { sketch(old + first, size); });
    correlate(known, old);
  }

  /// Collective. @throws NumericalError where A has a negative eigenvalue beyond rounding
  TraceEstimate estimate() const {
    const std::vector<double> found = op_.comm().of_rank0(leave_one_out());
    if (found.empty())
      throw NumericalError(products(), 0,
                           "--trace-method xnystrace: products are not those of a positive semi-definite matrix; take "
                           "another method, and see whether eigenvalues are negative");
    TraceEstimate trace;
    trace.samples = static_cast<std::int64_t>(r_.size());
    trace.value = found[0];
    trace.standard_error = found[1];
    trace.captured = found[2];
    trace.confidence = options_.confidence;
    trace.half_width = kStoppingEarly * trace.standard_error * student_quantile(options_.confidence, trace.samples - 1);
    return finished(std::move(trace), "xnystrace");
  }

 private:
  /// Products with new random vectors, taken into Q and R, and the new columns of K above its diagonal.
  void sketch(std::int64_t first, std::int64_t size) {
    const std::vector<at::Tensor> omega = random_vectors(static_cast<std::uint64_t>(first), size);
    std::vector<std::vector<double>> k(omega.size());
    for_blocks(first + size, [&](std::int64_t other, std::int64_t count) {
      const std::vector<at::Tensor> rows =
          other < first ? random_vectors(static_cast<std::uint64_t>(other), std::min(count, first - other)) : omega;
      append_to(k, op_.comm().sum(dots_block(as_rows(rows), omega)));
    });
    for (std::size_t i = 0; i < omega.size(); ++i) k_.push_back(std::move(k[i]));
    Orthonormalised added = extend_basis(apply(omega));
    for (std::vector<double>& column : added.coefficients) r_.push_back(std::move(column));
  }

  static std::vector<at::Tensor> as_rows(const std::vector<at::Tensor>& vectors) {
    std::vector<at::Tensor> rows;
    for (const at::Tensor& vector : vectors) rows.push_back(vector.unsqueeze(0));
    return rows;
  }

  /// QᵀΩ: what the rows from `known` on hold of all random vectors, and all rows of those from `old` on.
  void correlate(std::int64_t known, std::int64_t old) {
    const auto all = static_cast<std::int64_t>(r_.size());
    x_.resize(r_.size());
    const auto take = [&](std::int64_t begin, std::int64_t end, const std::vector<at::Tensor>& rows) {
      for_blocks(end - begin, [&](std::int64_t first, std::int64_t size) {
        const std::vector<at::Tensor> omega = random_vectors(static_cast<std::uint64_t>(begin + first), size);
        append_to(std::span(x_).subspan(static_cast<std::size_t>(begin + first), omega.size()),
                  op_.comm().sum(dots_block(rows, omega)));
      });
    };
    if (q_.rows() > known) take(0, old, q_.tail(known));
    if (q_.rows() > 0) take(old, all, q_.head(q_.rows()));
  }

  /// Each vector's coefficients behind those that its column has.
  static void append_to(std::span<std::vector<double>> columns, std::span<const double> sums) {
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const std::span<const double> own = coefficients(dots_of(sums, columns.size(), i));
      columns[i].insert(columns[i].end(), own.begin(), own.end());
    }
  }

  /// The mean of the estimates, its standard error, and tr A⟨Ω⟩; nothing where no shift makes H_ν positive definite.
  /// Local.
  std::vector<double> leave_one_out() const {
    const auto m = static_cast<std::int64_t>(r_.size());
    const at::Tensor r = matrix_of(r_, q_.rows()), xr = at::mm(matrix_of(x_, q_.rows()).t(), r);
    const at::Tensor h = (xr + xr.t()) / 2, upper = at::triu(matrix_of(k_, m)), k = upper + at::triu(upper, 1).t();
    const double norm = at::norm(r).item<double>();
    if (norm == 0) return {0, 0, 0};
    const double unit = kFirstShift * rounding() * norm / std::sqrt(static_cast<double>(op_.shard().n));
    for (double nu = unit; nu <= kMostShift * unit; nu *= 10) {
      const auto [lower, failed] = at::linalg_cholesky_ex(h + nu * k);
      if (failed.item<std::int64_t>() == 0) return shifted(r, h, k, lower, nu);
    }
    return {};
  }

  /// @param lower  Cᵀ
  std::vector<double> shifted(const at::Tensor& r, const at::Tensor& h, const at::Tensor& k, const at::Tensor& lower,
                              double nu) const {
    const auto n = static_cast<double>(op_.shard().n), m = static_cast<double>(r_.size());
    const at::Tensor inverse_c = at::linalg_solve_triangular(lower, at::eye(k.size(0), at::kDouble), false).t();
    const at::Tensor p = at::mm(inverse_c, inverse_c.t()), r_inverse_c = at::mm(r, inverse_c);
    const at::Tensor rp = at::mm(r_inverse_c, inverse_c.t());
    /// bᵀ(2νH + ν²K)b
    const auto rest = [&](const at::Tensor& b) { return at::mm(b.t(), at::mm(2 * nu * h + nu * nu * k, b)); };
    const at::Tensor w = at::mm(rp.t(), rp) + rest(p), k_inverse = at::linalg_inv(k);
    const double all = (r_inverse_c.square().sum() + rest(inverse_c).trace()).item<double>();
    const at::Tensor p_i = p.diagonal(), w_i = w.diagonal(), k_i = k_inverse.diagonal();
    const at::Tensor estimates = all + ((n - m + 1) * k_i - w_i) / p_i - nu * n;

    // [i, j]: without both.
    const at::Tensor share = p / p_i;  // P_ij / P_jj
    const at::Tensor p_ij = p_i.unsqueeze(1) - p * share, k_ij = k_i.unsqueeze(1) - k_inverse.square() / k_i;
    const at::Tensor w_ij = w_i.unsqueeze(1) - 2 * w * share + w_i * share.square();
    at::Tensor without = all - w_i / p_i + ((n - m + 2) * k_ij - w_ij) / p_ij - nu * n;
    without = without.masked_fill(at::eye(k.size(0), at::kBool), 0).sum(0) / (m - 1);
    const double variance = (m - 1) / m * (without - without.mean()).square().sum().item<double>();
    return {estimates.mean().item<double>(), std::sqrt(variance), all - nu * m};
  }

  double rounding() const {
    return c10::typeMetaToScalarType(op_.options().dtype()) == at::kDouble ? std::numeric_limits<double>::epsilon()
                                                                           : std::numeric_limits<float>::epsilon();
  }

  std::vector<std::vector<double>> r_, x_, k_;  // columns: of R and QᵀΩ [rows of Q], of K [vectors]
};

}  // namespace

TraceEstimate xnystrace(LinearOperator& op, const TraceMethodOptions& given, const std::function<void()>& on_product) {
  const at::NoGradGuard no_grad;
  if (given.max_products < 2 || !(given.rtol >= 0))
    throw UsageError("XNysTrace takes 2 products or more, and an rtol of 0 or more");
  TraceMethodOptions options = given;
  options.distribution = ProbeDistribution::kSpherical;
  options.max_products = std::min(options.max_products, op.shard().n);
  return estimate_in_rounds(XNysTrace(op, options, on_product), options, 1, kFewestNystrom);
}

}  // namespace hesspect
