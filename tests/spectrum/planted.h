// Spectra that are known to the last eigenvalue, of any dimension, and how far an estimate is from them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numbers>
#include <span>
#include <string>
#include <vector>

namespace hesspect::testing {

struct PlantedSpectrum {
  std::string name;
  std::vector<double> values;           // [n], ascending
  std::vector<double> simple_outliers;  // stand far apart from all else
  /// For RotatedDiagonalOperator and its like: the values in no order. Borrows them.
  std::function<double(std::int64_t)> entry() const {
    // n is coprime to the stride where it is not a multiple of this prime
    constexpr std::int64_t kStride = 1'299'709;
    return [this](std::int64_t i) {
      return values[static_cast<std::size_t>(i * kStride % static_cast<std::int64_t>(values.size()))];
    };
  }
  double scale() const { return std::max(std::abs(values.front()), std::abs(values.back())); }
  double trace() const {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum;
  }
};

/// The n quantiles at (i + ½)/n of a density on [lo, hi], which need not be normalised.
inline std::vector<double> quantiles(std::int64_t n, double lo, double hi,
                                     const std::function<double(double)>& density) {
  constexpr int kCells = 200'000;
  std::vector<double> mass{0};  // midpoint rule
  for (int c = 0; c < kCells; ++c) mass.push_back(mass.back() + density(lo + (hi - lo) * (c + 0.5) / kCells));
  std::vector<double> values;
  std::size_t cell = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double wanted = mass.back() * (static_cast<double>(i) + 0.5) / static_cast<double>(n);
    while (mass[cell + 1] < wanted) ++cell;
    const double part = (wanted - mass[cell]) / (mass[cell + 1] - mass[cell]);
    values.push_back(lo + (hi - lo) * (static_cast<double>(cell) + part) / kCells);
  }
  return values;
}

/// A bulk in [−0.1, 0.1], densest at zero, as trained networks have, and eigenvalues beside it.
inline PlantedSpectrum bulk_and(const std::string& name, std::int64_t n, const std::vector<double>& outliers) {
  PlantedSpectrum s{name, outliers, outliers};
  const std::int64_t bulk = n - static_cast<std::int64_t>(outliers.size());
  for (std::int64_t i = 0; i < bulk; ++i)
    s.values.push_back(0.1 * std::pow(2 * (static_cast<double>(i) + 0.5) / static_cast<double>(bulk) - 1, 3));
  std::sort(s.values.begin(), s.values.end());
  return s;
}

inline PlantedSpectrum outliers_and_bulk(std::int64_t n) {
  return bulk_and("outliers and bulk", n, {10, 11.2, 12.4, 13.6, 14.8, 16, 17.2, 18.4, 19.6, 20.8});
}

inline PlantedSpectrum negative_outliers(std::int64_t n) {
  return bulk_and("negative outliers", n, {-8, -7, -6, -5, -4, 10, 11.2, 12.4, 13.6, 14.8, 16, 17.2, 18.4, 19.6, 20.8});
}

/// 30, 15, 10, 7.5, …: outliers without an end, of which a run finds some.
inline PlantedSpectrum power_law(std::int64_t n) {
  PlantedSpectrum s{"power law", {}, {}};
  for (std::int64_t i = n; i >= 1; --i) s.values.push_back(30 / static_cast<double>(i));
  return s;
}

/// A few eigenvalues, then nothing: rank ten.
inline PlantedSpectrum low_rank(std::int64_t n) {
  PlantedSpectrum s{"low rank", std::vector<double>(static_cast<std::size_t>(n) - 10, 0.0), {}};
  for (int k = 1; k <= 10; ++k) s.simple_outliers.push_back(k);
  s.values.insert(s.values.end(), s.simple_outliers.begin(), s.simple_outliers.end());
  return s;
}

/// Of XᵀX/N, X [N, n] Gaussian, n = ratio · N and ratio < 1, for n → ∞.
inline PlantedSpectrum marchenko_pastur(std::int64_t n, double ratio = 0.5) {
  const double lo = std::pow(1 - std::sqrt(ratio), 2), hi = std::pow(1 + std::sqrt(ratio), 2);
  return {
      "Marchenko-Pastur", quantiles(n, lo, hi, [lo, hi](double x) { return std::sqrt((hi - x) * (x - lo)) / x; }), {}};
}

inline PlantedSpectrum semicircle(std::int64_t n) {
  return {"semicircle", quantiles(n, -2, 2, [](double x) { return std::sqrt(4 - x * x); }), {}};
}

/// Quarters of the spectrum within 1e-4 of 0, 1, 2 and 5.
inline PlantedSpectrum clusters(std::int64_t n) {
  PlantedSpectrum s{"clusters", {}, {}};
  for (std::int64_t i = 0; i < n; ++i)
    s.values.push_back(std::vector<double>{0, 1, 2, 5}[static_cast<std::size_t>(4 * i / n)] +
                       1e-4 * std::sin(1.7 * static_cast<double>(i)));
  std::sort(s.values.begin(), s.values.end());
  return s;
}

/// Six values, two to n/2 times each.
inline PlantedSpectrum multiplicities(std::int64_t n) {
  PlantedSpectrum s{"multiplicities", {}, {}};
  const auto put = [&s](double value, std::int64_t times) {
    s.values.insert(s.values.end(), static_cast<std::size_t>(times), value);
  };
  put(-5, 2);
  put(0, n - 10 - n / 10 - n / 5);
  put(0.5, n / 5);
  put(1, n / 10);
  put(7, 3);
  put(10, 5);
  return s;
}

/// 1, …, 5 twice each, then nothing: no run from one vector can tell them from simple ones.
inline PlantedSpectrum pairs(std::int64_t n) {
  PlantedSpectrum s{"pairs", std::vector<double>(static_cast<std::size_t>(n) - 10, 0.0), {}};
  for (int k = 1; k <= 5; ++k) s.values.insert(s.values.end(), 2, k);
  return s;
}

inline PlantedSpectrum all_zeros(std::int64_t n) {
  return {"all zeros", std::vector<double>(static_cast<std::size_t>(n), 0.0), {}};
}

inline std::vector<PlantedSpectrum> planted_spectra(std::int64_t n) {
  return {outliers_and_bulk(n), negative_outliers(n), low_rank(n),       power_law(n), marchenko_pastur(n),
          semicircle(n),        clusters(n),          multiplicities(n), pairs(n),     all_zeros(n)};
}

/// (number of values ≤ x) / n. @param values  ascending
inline double share_up_to(std::span<const double> values, double x) {
  return static_cast<double>(std::upper_bound(values.begin(), values.end(), x) - values.begin()) /
         static_cast<double>(values.size());
}

/// ∫ |F̂ − F| dλ, exactly: F of the values, F̂ a step function.
/// @param values              ascending
/// @param lambda, cumulative  where F̂ steps, ascending, and to which value
inline double wasserstein(std::span<const double> values, std::span<const double> lambda,
                          std::span<const double> cumulative) {
  double sum = 0, at = std::min(values.front(), lambda.front()), mass = 0, estimate = 0;
  std::size_t v = 0, k = 0;
  while (v < values.size() || k < lambda.size()) {
    const bool take_value = k == lambda.size() || (v < values.size() && values[v] <= lambda[k]);
    const double next = take_value ? values[v] : lambda[k];
    sum += (next - at) * std::abs(mass - estimate);
    at = next;
    if (take_value)
      mass = static_cast<double>(++v) / static_cast<double>(values.size());
    else
      estimate = cumulative[k++];
  }
  return sum;
}

}  // namespace hesspect::testing
