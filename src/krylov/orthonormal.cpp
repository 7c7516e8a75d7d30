#include "hesspect/krylov/orthonormal.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
namespace {

constexpr int kMostProjections = 8;
constexpr double kSettled = 0.5;  // a projection that leaves as much of a vector's norm was the last one needed

/// Vectors on their way to being orthogonal to rows [first, first + count) of a basis.
class Projector {
 public:
  /// @param sums  of dots_block, over all ranks
  Projector(Communicator& comm, Rows rows, std::int64_t first, std::span<at::Tensor> w, std::vector<double> sums)
      : comm_(comm), rows_(rows), first_(static_cast<std::size_t>(first)), w_(w), sums_(std::move(sums)) {}

  /// Projects until nothing more comes off, adds what was taken to the coefficients. @return ‖w_k‖ that is left
  std::vector<double> run(double drop, std::span<std::vector<double>> coefficients) {
    std::vector<double> before = take(coefficients);
    sums_ = comm_.sum(subtract_and_dots_block(rows_, h_, w_));
    before = take(coefficients);
    std::vector<double> left = subtracted();
    for (int more = 2; more < kMostProjections && !settled(before, left, drop); ++more) {
      sums_ = comm_.sum(dots_block(rows_, w_));
      before = take(coefficients);
      left = subtracted();
    }
    return left;
  }

 private:
  /// The sums' coefficients, to be subtracted; @return the norms of the vectors that hold them.
  std::vector<double> take(std::span<std::vector<double>> coefficients) {
    std::vector<double> norms;
    h_.clear();
    for (std::size_t k = 0; k < w_.size(); ++k) {
      const std::span<const double> own = dots_of(sums_, w_.size(), k);
      for (std::size_t j = 0; j + 1 < own.size(); ++j) {
        h_.push_back(own[j]);
        coefficients[k][first_ + j] += own[j];
      }
      norms.push_back(std::sqrt(own.back()));
    }
    return norms;
  }

  std::vector<double> subtracted() {
    std::vector<double> left = comm_.sum(subtract_block(rows_, h_, w_));
    for (double& norm : left) norm = std::sqrt(norm);
    return left;
  }

  static bool settled(const std::vector<double>& before, const std::vector<double>& left, double drop) {
    for (std::size_t k = 0; k < left.size(); ++k)
      if (left[k] > drop && left[k] < kSettled * before[k]) return false;
    return true;
  }

  Communicator& comm_;
  Rows rows_;
  std::size_t first_;
  std::span<at::Tensor> w_;
  std::vector<double> sums_, h_;
};

void require_finite(double norm_sq, std::int64_t product) {
  if (!std::isfinite(norm_sq))
    throw NumericalError(product, norm_sq,
                         "product " + std::to_string(product) + " is not finite (its squared norm is " +
                             std::to_string(norm_sq) + "): loss or weights overflow, or hold NaN");
}

}  // namespace

double drop_tolerance(at::ScalarType vectors) { return vectors == at::kDouble ? 1e-12 : rounding_unit(vectors); }

double rounding_unit(at::ScalarType vectors) {
  return 10 * (vectors == at::kDouble ? std::numeric_limits<double>::epsilon()
                                      : static_cast<double>(std::numeric_limits<float>::epsilon()));
}

Orthonormalised append_orthonormal(Communicator& comm, Basis& basis, std::span<at::Tensor> w,
                                   const OrthonormalOptions& options) {
  const at::NoGradGuard no_grad;
  Orthonormalised result;
  const std::int64_t old = basis.rows(), most = old + static_cast<std::int64_t>(w.size());
  const std::vector<at::Tensor> rows = basis.head(old);
  std::vector<double> sums = comm.sum(dots_block(rows, w));
  double scale = options.scale;
  for (std::size_t k = 0; k < w.size(); ++k) {
    const double norm_sq = dots_of(sums, w.size(), k).back();
    require_finite(norm_sq, options.step + static_cast<std::int64_t>(k));
    result.norms.push_back(std::sqrt(norm_sq));
    scale = std::max(scale, result.norms.back());
  }
  if (basis.capacity() < std::min(most, options.n)) agree(comm, [&] { basis.reserve(std::min(most, options.n)); });

  const double drop = options.tolerance * scale;
  result.coefficients.assign(w.size(), std::vector<double>(static_cast<std::size_t>(most), 0.0));
  std::vector<double> left = result.norms;
  if (old > 0) left = Projector(comm, rows, 0, w, std::move(sums)).run(drop, result.coefficients);

  for (std::size_t k = 0; k < w.size(); ++k) {
    const std::span<at::Tensor> one = w.subspan(k, 1);
    const std::span<std::vector<double>> coefficients = std::span(result.coefficients).subspan(k, 1);
    const auto project = [&](std::int64_t first) {
      const std::vector<at::Tensor> against = basis.tail(first);
      return Projector(comm, against, first, one, comm.sum(dots_block(against, one))).run(drop, coefficients)[0];
    };
    double norm = left[k];
    if (basis.rows() > old && norm > drop) norm = project(old);
    // Where the block's own vectors took most of it, rounding has left a part of the older rows that shows.
    if (norm > drop && norm < kSettled * left[k]) norm = project(0);
    // In n dimensions n rows leave nothing but rounding, whatever its size.
    if (!(norm > drop) || basis.rows() >= options.n) continue;
    coefficients[0][static_cast<std::size_t>(basis.rows())] = norm;
    at::Tensor row = basis.append();
    scale_into(w[k], 1 / norm, row);
    ++result.added;
  }
  for (std::vector<double>& c : result.coefficients) c.resize(static_cast<std::size_t>(basis.rows()));
  return result;
}

}  // namespace hesspect
