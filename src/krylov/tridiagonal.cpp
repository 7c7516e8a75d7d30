#include "hesspect/krylov/tridiagonal.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/krylov/tridiagonal_eigen.h"

namespace hesspect {

void Tridiagonal::add_step(double next_alpha, double next_beta, double norm, bool closes) {
  alpha.push_back(next_alpha);
  beta.push_back(next_beta);
  product_norm.push_back(norm);
  blocks.back() = {blocks.back().begin, steps(), closes, next_beta};
}

void Tridiagonal::begin_block() {
  blocks.push_back({steps(), steps(), false, 0});
  beta.back() = 0;
}

void Tridiagonal::restart_thick(ThickRestart kept) {
  thick_restarts.push_back(std::move(kept));
  blocks.push_back({steps(), steps(), false, 0});
}

std::int64_t Tridiagonal::rows() const {
  if (thick_restarts.empty()) return steps();
  return static_cast<std::int64_t>(thick_restarts.back().theta.size()) + steps() - thick_restarts.back().step;
}

std::int64_t Tridiagonal::first_row() const {
  std::int64_t row = 0, kept = 0, begin = 0;
  for (const ThickRestart& thick : thick_restarts) {
    row += kept + thick.step - begin + 1;
    kept = static_cast<std::int64_t>(thick.theta.size());
    begin = thick.step;
  }
  return row;
}

double Tridiagonal::scale() const {
  return product_norm.empty() ? 0 : *std::max_element(product_norm.begin(), product_norm.end());
}

std::size_t Tridiagonal::first_block() const {
  std::size_t first = blocks.size() - 1;
  while (first > 0 && blocks[first - 1].closed) --first;
  return first;
}

namespace {

/// A diagonal block of T, solved.
struct Segment {
  std::size_t block = 0;   // in Tridiagonal::blocks
  std::int64_t begin = 0;  // its first row
  TridiagonalEigen eigen;
  std::vector<double> coupling;  // [size]: β_m s_m, of each Ritz vector with the residual vector
};

std::vector<Segment> segments(const Tridiagonal& t, bool vectors) {
  std::vector<Segment> all;
  std::int64_t begin = 0;
  const std::size_t first = t.first_block();
  for (std::size_t b = first; b < t.blocks.size(); ++b) {
    const Tridiagonal::Block& block = t.blocks[b];
    const auto from = static_cast<std::size_t>(block.begin), size = static_cast<std::size_t>(block.size());
    const auto alpha = std::span(t.alpha).subspan(from, size), beta = std::span(t.beta).subspan(from, size);
    Segment segment{b, begin, {}, {}};
    if (b == first && !t.thick_restarts.empty()) {
      const Tridiagonal::ThickRestart& thick = t.thick_restarts.back();
      segment.eigen = arrow_eigen(thick.theta, thick.coupling, alpha, beta, vectors);
      if (size == 0) segment.coupling = thick.coupling;
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

/// Where a Ritz pair lies: its segment and its number in it.
struct Place {
  double value;
  const Segment* segment;
  std::size_t i;
};

std::vector<Place> ascending(const std::vector<Segment>& segments) {
  std::vector<Place> places;
  for (const Segment& segment : segments)
    for (std::size_t i = 0; i < segment.eigen.values.size(); ++i)
      places.push_back({segment.eigen.values[i], &segment, i});
  std::ranges::stable_sort(places, {}, &Place::value);
  return places;
}

}  // namespace

std::vector<RitzPair> Tridiagonal::ritz_pairs() const {
  const std::vector<Segment> all = segments(*this, /*vectors=*/false);
  std::vector<RitzPair> pairs;
  for (const auto& [value, segment, i] : ascending(all))
    pairs.push_back({value, std::abs(segment->coupling[i]), segment->eigen.first[i], segment->block});
  return pairs;
}

std::vector<double> Tridiagonal::ritz_coefficients(std::span<const std::size_t> indices) const {
  const std::vector<Segment> all = segments(*this, /*vectors=*/true);
  const std::vector<Place> places = ascending(all);
  const auto m = static_cast<std::size_t>(rows());
  std::vector<double> coefficients(indices.size() * m, 0.0);
  for (std::size_t k = 0; k < indices.size(); ++k) {
    const auto& [value, segment, i] = places.at(indices[k]);
    const std::size_t size = segment->eigen.values.size();
    std::copy_n(segment->eigen.vectors.data() + i * size, size, coefficients.data() + k * m + segment->begin);
  }
  return coefficients;
}

std::vector<double> Tridiagonal::residual_coefficients() const {
  if (!thick_restarts.empty() && thick_restarts.back().step == steps()) return thick_restarts.back().coupling;
  std::vector<double> c(static_cast<std::size_t>(rows()), 0.0);
  if (!c.empty()) c.back() = beta.back();  // 0 where a fresh vector stands next
  return c;
}

Projection Tridiagonal::projection() const {
  const auto m = static_cast<std::size_t>(rows());
  Projection projection{rows(), std::vector<double>(m * m, 0.0), 0};
  std::size_t kept = 0, step = 0;
  const auto set = [&](std::size_t i, std::size_t j, double value) {
    projection.t[i * m + j] = projection.t[j * m + i] = value;
  };
  if (!thick_restarts.empty()) {
    const ThickRestart& thick = thick_restarts.back();
    if (thick.step == steps())
      throw Error(ExitCode::kInternal, "Tridiagonal::projection: a thick restart needs a step first");
    kept = thick.theta.size();
    step = static_cast<std::size_t>(thick.step);
    for (std::size_t i = 0; i < kept; ++i) {
      set(i, i, thick.theta[i]);
      set(i, kept, thick.coupling[i]);
    }
  }
  for (std::size_t i = kept; i < m; ++i, ++step) {
    set(i, i, alpha[step]);
    if (i + 1 < m) set(i, i + 1, beta[step]);
  }
  if (m > 0 && !breakdown()) projection.beta = beta.back();
  return projection;
}

}  // namespace hesspect
