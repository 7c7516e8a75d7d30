#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/trace.h"
#include "vector_blocks.h"

namespace hesspect {
namespace {

constexpr std::int64_t kFirstVectors = 8;
/// A vector whose share in the rows of R is that close to 1 is the only one to hold its direction.
constexpr double kLeverage = 1 - 1e-8;
/// The estimates without one vector share all others, so that their spread understates the mean's: by 1.05 to 1.35 for
/// scaled ones, by 1.3 to 1.6 for Rademacher vectors (8 to 60 vectors, spectra flat to exponentially decaying, n = 300;
/// by up to 2 while the vectors are about as many as the outliers).
constexpr double kSharedScaled = 1.25, kSharedPlain = 1.5;
/// The interval is looked at after each round, which makes it too narrow, as in trace.cpp.
constexpr double kStoppingOfXTrace = 1.1;

// With Ω [n, m] random vectors and A Ω = Q R, the estimate without vector i is
//
//   tr(Q_iᵀ A Q_i) + ω_iᵀ (I − Q_i Q_iᵀ) A (I − Q_i Q_iᵀ) ω_i,   Q_i Q_iᵀ = Q (I − s_i s_iᵀ) Qᵀ,
//
// where Q_i spans A Ω but for its column i, and the unit vector s_i is orthogonal to all columns of R but that one:
// s_i ∝ R⁻ᵀ e_i, and 0 where the others span what column i holds (A of low rank). With H = QᵀAQ, x = Qᵀω_i,
// v = (I − s_i s_iᵀ) x and A symmetric, so that QᵀAω_i = R e_i:
//
//   tr H − s_iᵀ H s_i + ω_iᵀ A ω_i − 2 vᵀ R e_i + vᵀ H v.
//
// All of it is in H, R, QᵀΩ and the ω_iᵀ A ω_i, to which further vectors add rows and columns: of long vectors Q alone
// is kept. Gaussian and spherical ω_i, seen from the complement of Q_i, point in uniformly random directions: there the
// second term is scaled by (n − rank Q_i) / ‖(I − Q_i Q_iᵀ) ω_i‖², which keeps it unbiased and takes the spread of the
// norm away (the paper's §2.3). Rademacher vectors have no such symmetry.
class XTrace : public SketchingEstimator {
 public:
  using SketchingEstimator::SketchingEstimator;

  void round(std::int64_t vectors) {
    const std::int64_t known = q_.rows();
    sketch(vectors);
    project(known);
    correlate(known, vectors);
  }

  /// Collective.
  TraceEstimate estimate() const {
    const std::vector<double> all = op_.comm().of_rank0(leave_one_out());
    const double count = static_cast<double>(all.size());
    double sum = 0, square = 0;
    for (const double one : all) sum += one;
    TraceEstimate trace;
    trace.value = sum / count;
    for (const double one : all) square += (one - trace.value) * (one - trace.value);
    trace.standard_error = (scaled() ? kSharedScaled : kSharedPlain) * std::sqrt(square / (count - 1) / count);
    trace.confidence = options_.confidence;
    trace.half_width = kStoppingOfXTrace * trace.standard_error *
                       student_quantile(options_.confidence, static_cast<std::int64_t>(all.size()) - 1);
    trace.samples = static_cast<std::int64_t>(all.size());
    for (std::size_t j = 0; j < h_.size(); ++j) trace.captured += h_[j][j];
    return finished(std::move(trace), "xtrace");
  }

 private:
  /// Products with new random vectors, taken into Q and R.
  void sketch(std::int64_t vectors) {
    for_blocks(vectors, [&](std::int64_t, std::int64_t size) {
      const std::vector<at::Tensor> omega = random_vectors(quadratic_form_.size(), size);
      const std::span<at::Tensor> product = apply(omega);
      std::vector<double> sums;
      for (std::size_t i = 0; i < omega.size(); ++i) {
        sums.push_back(dot_product(omega[i], product[i]));
        sums.push_back(norm_sq(omega[i]));
      }
      sums = op_.comm().sum(std::move(sums));
      Orthonormalised added = extend_basis(product);
      for (std::size_t i = 0; i < omega.size(); ++i) {
        quadratic_form_.push_back(sums[2 * i]);
        norm_sq_.push_back(sums[2 * i + 1]);
        r_.push_back(std::move(added.coefficients[i]));
      }
    });
  }

  /// QᵀAQ of the rows from `known` on.
  void project(std::int64_t known) {
    const std::vector<at::Tensor> q = q_.head(q_.rows());
    for_blocks(q_.rows() - known, [&](std::int64_t first, std::int64_t size) {
      const std::vector<at::Tensor> x = q_.vectors(known + first, size);
      const std::vector<double> sums = op_.comm().sum(dots_block(q, apply(x)));
      for (std::size_t i = 0; i < x.size(); ++i) {
        const std::span<const double> own = dots_of(sums, x.size(), i);
        require_finite(own.back());
        h_.emplace_back(own.begin(), own.end() - 1);
      }
    });
  }

  /// QᵀΩ: what the rows from `known` on hold of all random vectors, and all rows of the new ones.
  void correlate(std::int64_t known, std::int64_t fresh) {
    const auto all = static_cast<std::int64_t>(quadratic_form_.size()), old = all - fresh;
    x_.resize(quadratic_form_.size());
    const auto take = [&](std::int64_t begin, std::int64_t end, const std::vector<at::Tensor>& rows) {
      for_blocks(end - begin, [&](std::int64_t first, std::int64_t size) {
        const auto from = static_cast<std::size_t>(begin + first), count = static_cast<std::size_t>(size);
        const std::vector<double> sums = op_.comm().sum(dots_block(rows, random_vectors(from, size)));
        for (std::size_t i = 0; i < count; ++i) {
          const std::span<const double> own = coefficients(dots_of(sums, count, i));
          x_[from + i].insert(x_[from + i].end(), own.begin(), own.end());
        }
      });
    };
    take(0, old, q_.tail(known));
    take(old, all, q_.head(q_.rows()));
  }

  /// H, of whose entries right of the diagonal those of earlier rounds are known by symmetry.
  at::Tensor projected() const {
    const at::Tensor upper = at::triu(matrix_of(h_, q_.rows()));
    return upper + at::triu(upper, 1).t();
  }

  /// s_i in the columns of a matrix [rows of Q, vectors], and [vectors] ones and zeros for those that are not 0.
  std::pair<at::Tensor, at::Tensor> left_out() const {
    // R⁺ᵀ e_i; the share of e_i in R's row space says whether column i alone holds its direction.
    const auto [u, sigma, vt] = at::linalg_svd(matrix_of(r_, q_.rows()), /*full_matrices=*/false);
    const at::Tensor needed = (vt.square().sum(0) > kLeverage).to(at::kDouble);
    const at::Tensor s = at::mm(u, vt / sigma.unsqueeze(1));
    return {s / at::norm(s, 2, 0, true).clamp_min(1e-300) * needed, needed};
  }

  /// The estimates without vector i, for all i. Local.
  std::vector<double> leave_one_out() const {
    const std::int64_t rows = q_.rows();
    at::Tensor estimates = at::tensor(quadratic_form_, at::kDouble);
    if (rows > 0) {
      const at::Tensor h = projected(), x = matrix_of(x_, rows), r = matrix_of(r_, rows);
      const auto [s, needed] = left_out();
      const at::Tensor v = x - s * (s * x).sum(0, true);
      at::Tensor rest = estimates - 2 * (v * r).sum(0) + (v * at::mm(h, v)).sum(0);
      if (scaled()) {
        const at::Tensor left = at::tensor(norm_sq_, at::kDouble) - v.square().sum(0);
        const at::Tensor dimensions = static_cast<double>(op_.shard().n - rows) + needed;
        rest = at::where(dimensions > 0, rest * dimensions / left, at::zeros_like(rest));
      }
      estimates = at::trace(h) - (s * at::mm(h, s)).sum(0) + rest;
    }
    estimates = estimates.contiguous();
    return {estimates.const_data_ptr<double>(), estimates.const_data_ptr<double>() + estimates.numel()};
  }

  bool scaled() const { return options_.distribution != ProbeDistribution::kRademacher; }

  std::vector<std::vector<double>> r_, x_, h_;    // columns: of R and QᵀΩ [vectors], of H [rows of Q]
  std::vector<double> quadratic_form_, norm_sq_;  // [vectors]: ω_iᵀ A ω_i, ‖ω_i‖²
};

}  // namespace

TraceEstimate xtrace(LinearOperator& op, const TraceMethodOptions& options, const std::function<void()>& on_product) {
  const at::NoGradGuard no_grad;
  if (options.max_products < 4 || !(options.rtol >= 0))
    throw UsageError("XTrace takes 4 products or more, and an rtol of 0 or more");
  return estimate_in_rounds(XTrace(op, options, on_product), options, 2, kFirstVectors);
}

}  // namespace hesspect
