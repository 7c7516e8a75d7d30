// What is read off a run: Ritz pairs, Ritz vectors, orthogonality. None of it changes the run.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/core/random_probe.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/krylov/tridiagonal.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {

/// A diagonal block of T as it stands, solved.
struct Lanczos::Segment {
  std::size_t block = 0;   // in blocks_
  std::int64_t begin = 0;  // its first row
  TridiagonalEigen eigen;
  std::vector<double> coupling;  // [size]: β_m s_m, of each Ritz vector with the residual vector
};

std::int64_t Lanczos::rows() const {
  if (thick_.empty()) return steps();
  return static_cast<std::int64_t>(thick_.back().theta.size()) + steps() - thick_.back().step;
}

std::vector<Lanczos::Segment> Lanczos::segments(bool vectors) const {
  std::vector<Segment> all;
  std::int64_t begin = 0;
  for (std::size_t b = segment_begin_; b < blocks_.size(); ++b) {
    const Block& block = blocks_[b];
    const auto from = static_cast<std::size_t>(block.begin), size = static_cast<std::size_t>(block.size());
    const auto alpha = std::span(alpha_).subspan(from, size), beta = std::span(beta_).subspan(from, size);
    Segment segment{b, begin, {}, {}};
    if (b == segment_begin_ && !thick_.empty()) {
      segment.eigen = arrow_eigen(thick_.back().theta, thick_.back().coupling, alpha, beta, vectors);
      if (size == 0) segment.coupling = thick_.back().coupling;
    } else {
      segment.eigen = tridiagonal_eigen(alpha, beta, vectors);
    }
    if (segment.coupling.empty())
      for (const double last : segment.eigen.last) segment.coupling.push_back(block.residual_norm * last);
    begin += static_cast<std::int64_t>(segment.eigen.values.size());
    all.push_back(std::move(segment));
  }
  return all;
}

namespace {

/// Where a Ritz pair lies: its segment and its number in it. Ascending by value.
struct Place {
  double value;
  std::size_t segment, i;
};

template <class Segments>
std::vector<Place> ascending(const Segments& segments) {
  std::vector<Place> places;
  for (std::size_t k = 0; k < segments.size(); ++k)
    for (std::size_t i = 0; i < segments[k].eigen.values.size(); ++i)
      places.push_back({segments[k].eigen.values[i], k, i});
  std::stable_sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.value < b.value; });
  return places;
}

}  // namespace

std::vector<RitzPair> Lanczos::ritz_pairs() const {
  const std::vector<Segment> all = segments(/*vectors=*/false);
  std::vector<RitzPair> pairs;
  for (const Place& place : ascending(all)) {
    const Segment& segment = all[place.segment];
    pairs.push_back({place.value, std::abs(segment.coupling[place.i]), segment.eigen.first[place.i], segment.block});
  }
  return pairs;
}

std::vector<double> Lanczos::ritz_coefficients() const {
  const std::vector<Segment> all = segments(/*vectors=*/true);
  const auto rows = static_cast<std::size_t>(this->rows());
  std::vector<double> coefficients(rows * rows, 0.0);
  double* to = coefficients.data();
  for (const Place& place : ascending(all)) {
    const Segment& segment = all[place.segment];
    const std::size_t size = segment.eigen.values.size();
    const auto from = segment.eigen.vectors.begin() + static_cast<std::ptrdiff_t>(place.i * size);
    std::copy_n(from, size, to + segment.begin);
    to += rows;
  }
  return coefficients;
}

Projection Lanczos::projection() const {
  if (!full()) throw Error(ExitCode::kInternal, "Lanczos::projection needs full re-orthogonalisation");
  if (!thick_.empty() && thick_.back().step == steps())
    throw Error(ExitCode::kInternal, "Lanczos::projection: a thick restart needs a step first");
  Projection projection;
  projection.rows = rows();
  const auto m = static_cast<std::size_t>(projection.rows);
  projection.t.assign(m * m, 0.0);
  std::size_t kept = 0, step = 0;
  const auto set = [&](std::size_t i, std::size_t j, double value) {
    projection.t[i * m + j] = projection.t[j * m + i] = value;
  };
  if (!thick_.empty()) {
    const LanczosRecord::ThickRestart& thick = thick_.back();
    kept = thick.theta.size();
    step = static_cast<std::size_t>(thick.step);
    for (std::size_t i = 0; i < kept; ++i) {
      set(i, i, thick.theta[i]);
      set(i, kept, thick.coupling[i]);
    }
  }
  for (std::size_t i = kept; i < m; ++i, ++step) {
    set(i, i, alpha_[step]);
    if (i + 1 < m) set(i, i + 1, beta_[step]);
  }
  if (m > 0 && !breakdown()) projection.beta = beta_.back();
  return projection;
}

/// The first rows of the basis.
std::vector<at::Tensor> Lanczos::stored_head(std::int64_t count) const {
  if (!full()) throw Error(ExitCode::kInternal, "a Lanczos run without re-orthogonalisation has no basis to read");
  if (!has_rows())
    throw Error(ExitCode::kInternal, "a Lanczos run that is taken again has no rows before its last thick restart");
  return basis_.head(count);
}

std::vector<at::Tensor> Lanczos::basis_rows() const { return stored_head(rows() + (projection().beta > 0 ? 1 : 0)); }

at::Tensor Lanczos::ritz_vector(std::span<const double> s) const {
  const at::NoGradGuard no_grad;
  if (static_cast<std::int64_t>(s.size()) != rows())
    throw Error(ExitCode::kInternal, "Lanczos::ritz_vector: " + std::to_string(s.size()) + " coefficients for " +
                                         std::to_string(rows()) + " rows");
  std::vector<double> negative(s.size());
  std::ranges::transform(s, negative.begin(), std::negate());
  at::Tensor vector = at::zeros_like(work_);
  subtract(stored_head(rows()), negative, vector);
  return vector;
}

// E = QᵀQ − I through E g, with g of random signs: whichever pair of rows has the largest entry of E, the others in its
// row add to it as often as they take away.
double Lanczos::orthogonality_loss() const {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> rows = stored_head(this->rows());
  std::vector<double> g(static_cast<std::size_t>(this->rows()));
  fill_probe(ProbeDistribution::kRademacher, /*seed=*/0, /*probe=*/0, 0, this->rows(), g.data());
  std::vector<double> negative(g.size());
  std::ranges::transform(g, negative.begin(), std::negate());
  at::Tensor sum = work_;  // free between steps
  subtract(rows, negative, sum.zero_());
  const std::vector<double> image = comm_->sum(dots(rows, sum));
  double loss = 0;
  for (std::size_t i = 0; i < g.size(); ++i) loss = std::max(loss, std::abs(image[i] - g[i]));
  return loss;
}

}  // namespace hesspect
