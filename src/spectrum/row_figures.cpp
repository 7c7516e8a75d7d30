#include "hesspect/spectrum/row_figures.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "hesspect/spectrum/trace.h"

namespace hesspect {
namespace {

using Binomial = boost::math::binomial_distribution<>;

double total_of(std::span<const double> values) { return std::accumulate(values.begin(), values.end(), 0.0); }

struct Ratio {
  double value = Interval::kUnknown, error = Interval::kUnknown;
  double third = 0;       // cumulant
  std::int64_t rows = 0;  // that have any terms
};

/// By linearisation: the ratio's error is that of the mean of sums − ratio · counts. Rows without terms say nothing.
Ratio ratio_of(std::span<const double> sums, std::span<const double> counts) {
  Ratio ratio;
  const double count = total_of(counts);
  if (!(count > 0)) return ratio;
  ratio.value = total_of(sums) / count;
  double square = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (counts[i] == 0) continue;
    ++ratio.rows;
    const double off = (sums[i] - ratio.value * counts[i]) / count;
    square += off * off;
    ratio.third += off * off * off;
  }
  const double n = static_cast<double>(ratio.rows);
  if (ratio.rows > 1) ratio.error = std::sqrt(square * n / (n - 1));
  return ratio;
}

/// Where a studentised mean T lies, when what is Student's is T + aT²/3 + a²T³/27 + a/6, a its skewness.
double with_skewness(double quantile, double a) {
  if (std::abs(a) < 1e-9) return quantile;
  return 3 / a * (std::cbrt(1 + a * (quantile - a / 6)) - 1);
}

/// Student's interval, and Hall's transformation for the skewness that is seen: a mean of few rows with a long tail
/// lies too low more often than too high, and with too small an error.
Interval around(double value, double error, double third, std::int64_t degrees, double confidence) {
  const double quantile = student_quantile(confidence, degrees), a = error > 0 ? third / std::pow(error, 3) : 0;
  return {value, value - with_skewness(quantile, a) * error, value - with_skewness(-quantile, a) * error};
}

/// What each bin of confidences holds.
struct Bins {
  std::vector<double> terms, correct, confidence;
  explicit Bins(std::size_t bins) : terms(bins), correct(bins), confidence(bins) {}
  void clear() {
    for (auto* list : {&terms, &correct, &confidence}) std::ranges::fill(*list, 0.0);
  }
  double error() const {
    double error = 0, all = 0;
    for (std::size_t b = 0; b < terms.size(); ++b) {
      error += std::abs(correct[b] - confidence[b]);
      all += terms[b];
    }
    return all > 0 ? error / all : Interval::kUnknown;
  }
};

class CalibrationError {
 public:
  CalibrationError(const RowSums& rows, std::uint64_t seed) : rows_(rows), random_(seed) {
    std::int64_t row = -1;
    for (std::size_t e = 0; e <= rows.bin.size(); ++e)
      if (e == rows.bin.size() || rows.bin_row[e] != row) {
        first_.push_back(e);
        if (e < rows.bin.size()) row = rows.bin_row[e];
      }
  }

  double value() {
    bins_.clear();
    for (std::size_t e = 0; e < rows_.bin.size(); ++e) add(e, rows_.bin_correct[e]);
    return bins_.error();
  }

  /// A sum of absolute values is off by no more than Σ |ĝ − g| over the bins' signed gaps g, whose quantile a bootstrap
  /// over rows gives: that holds also where gaps are zero, about which the estimate has a bias. Down to zero where a
  /// calibrated model would show as much.
  Interval interval(double confidence, std::int64_t resamples, double calibrated) {
    const double center = value();
    const std::vector<double> gap = gaps();
    const std::size_t rows = first_.size() - 1;  // that have terms
    if (rows < 2) return {center, Interval::kUnknown, Interval::kUnknown};
    std::uniform_int_distribution<std::size_t> any(0, rows - 1);
    std::vector<double> off;
    for (std::int64_t i = 0; i < resamples; ++i) {
      bins_.clear();
      for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t row = any(random_);
        for (std::size_t e = first_[row]; e < first_[row + 1]; ++e) add(e, rows_.bin_correct[e]);
      }
      const std::vector<double> again = gaps();
      double sum = 0;
      for (std::size_t b = 0; b < gap.size(); ++b) sum += std::abs(again[b] - gap[b]);
      off.push_back(sum);
    }
    const double width = quantile(std::move(off), confidence);
    return {center, center <= calibrated ? 0 : std::max(0.0, center - width), std::min(1.0, center + width)};
  }

  /// What it would be, were each term right with the probability that its confidence says.
  std::vector<double> if_calibrated(std::int64_t draws) {
    std::vector<double> values;
    std::uniform_real_distribution<double> uniform;
    for (std::int64_t i = 0; i < draws; ++i) {
      bins_.clear();
      for (std::size_t e = 0; e < rows_.bin.size(); ++e) {
        const double terms = rows_.bin_terms[e], p = std::clamp(rows_.bin_confidence[e] / terms, 0.0, 1.0);
        add(e, terms == 1 ? (uniform(random_) < p ? 1.0 : 0.0)
                          : static_cast<double>(std::binomial_distribution<std::int64_t>(
                                static_cast<std::int64_t>(terms), p)(random_)));
      }
      values.push_back(bins_.error());
    }
    return values;
  }

  static double quantile(std::vector<double> values, double share) {
    std::ranges::sort(values);
    return values[static_cast<std::size_t>(std::lround(share * static_cast<double>(values.size() - 1)))];
  }

 private:
  void add(std::size_t entry, double correct) {
    const auto bin = static_cast<std::size_t>(rows_.bin[entry]);
    bins_.terms[bin] += rows_.bin_terms[entry];
    bins_.correct[bin] += correct;
    bins_.confidence[bin] += rows_.bin_confidence[entry];
  }

  /// (right − confidence) over all terms, by bin.
  std::vector<double> gaps() const {
    const double all = total_of(bins_.terms);
    std::vector<double> gaps;
    for (std::size_t b = 0; b < bins_.terms.size(); ++b) gaps.push_back((bins_.correct[b] - bins_.confidence[b]) / all);
    return gaps;
  }

  const RowSums& rows_;
  std::mt19937_64 random_;
  std::vector<std::size_t> first_;  // entry of each row that has any, and the end
  Bins bins_{static_cast<std::size_t>(kConfidenceBins)};
};

}  // namespace

Interval ratio_over_rows(std::span<const double> sums, std::span<const double> counts, double confidence) {
  const Ratio ratio = ratio_of(sums, counts);
  if (!std::isfinite(ratio.error)) return {ratio.value, Interval::kUnknown, Interval::kUnknown};
  return around(ratio.value, ratio.error, ratio.third, ratio.rows - 1, confidence);
}

Interval difference_over_rows(std::span<const double> sums_a, std::span<const double> counts_a,
                              std::span<const double> sums_b, std::span<const double> counts_b, double confidence) {
  const Ratio a = ratio_of(sums_a, counts_a), b = ratio_of(sums_b, counts_b);
  const double difference = b.value - a.value;
  if (!std::isfinite(a.error) || !std::isfinite(b.error)) return {difference, Interval::kUnknown, Interval::kUnknown};
  // The fewer degrees of both: wider than Welch's.
  return around(difference, std::hypot(a.error, b.error), b.third - a.third, std::min(a.rows, b.rows) - 1, confidence);
}

Interval binomial_interval(double successes, double trials, double confidence) {
  if (!(trials > 0)) return {};
  const double tail = (1 - confidence) / 2;
  return {successes / trials, successes > 0 ? Binomial::find_lower_bound_on_p(trials, successes, tail) : 0,
          successes < trials ? Binomial::find_upper_bound_on_p(trials, successes, tail) : 1};
}

std::int64_t resamples_for(std::size_t rows) {
  constexpr double kDraws = 1e8;
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(kDraws / static_cast<double>(rows + 1)), 100, 1000);
}

DataQuality quality_of(const RowSums& rows, double confidence, std::uint64_t seed) {
  DataQuality quality;
  quality.rows = std::ssize(rows.loss);
  quality.loss = ratio_over_rows(rows.loss, rows.loss_count, confidence);
  quality.terms = total_of(rows.terms);
  if (!(quality.terms > 0)) return quality;
  const bool single = std::ranges::all_of(rows.terms, [](double terms) { return terms <= 1; });
  quality.accuracy = single ? binomial_interval(total_of(rows.correct), quality.terms, confidence)
                            : ratio_over_rows(rows.correct, rows.terms, confidence);
  quality.nll = ratio_over_rows(rows.nll, rows.terms, confidence);
  quality.brier = ratio_over_rows(rows.brier, rows.terms, confidence);
  CalibrationError calibration(rows, seed);
  const std::int64_t resamples = resamples_for(rows.bin.size());
  const std::vector<double> calibrated = calibration.if_calibrated(resamples);
  quality.calibrated_ece = total_of(calibrated) / static_cast<double>(resamples);
  quality.ece = calibration.interval(confidence, resamples, CalibrationError::quantile(calibrated, confidence));
  return quality;
}

Interval ratio_over_samples(std::span<const double> values, std::span<const double> over, double confidence) {
  constexpr double kFewVectors = 1.25;
  Interval interval = ratio_over_rows(values, over, confidence);
  interval.lower = interval.value - kFewVectors * (interval.value - interval.lower);
  interval.upper = interval.value + kFewVectors * (interval.upper - interval.value);
  return interval;
}

Interval mean_over_samples(std::span<const double> values, double confidence) {
  const std::vector<double> ones(values.size(), 1.0);
  return ratio_over_samples(values, ones, confidence);
}

}  // namespace hesspect
