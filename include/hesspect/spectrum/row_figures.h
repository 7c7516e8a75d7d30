// Figures over the rows of a data set, with intervals that say how they would differ on other rows of the same kind.
#pragma once

#include <cstdint>
#include <span>

#include "hesspect/core/row_sums.h"
#include "hesspect/spectrum/measures.h"

namespace hesspect {

/// Σ sums / Σ counts over rows and the interval of that ratio, rows drawn independently: Student's, longer on the side
/// to which the rows are skewed. One row: no interval.
/// Source of the latter: Hall, On the removal of skewness by transformation, J. R. Statist. Soc. B 54, 1992
Interval ratio_over_rows(std::span<const double> sums, std::span<const double> counts, double confidence);

/// Interval of the difference b − a of two such ratios of other rows.
Interval difference_over_rows(std::span<const double> sums_a, std::span<const double> counts_a,
                              std::span<const double> sums_b, std::span<const double> counts_b, double confidence);

/// The exact binomial interval of Clopper and Pearson.
Interval binomial_interval(double successes, double trials, double confidence);

/// How many times rows are drawn anew.
std::int64_t resamples_for(std::size_t rows);

/// Loss, accuracy, NLL, expected calibration error and Brier score. Accuracy is binomial where no row has more than one
/// term, else a ratio over rows; the calibration error's interval holds for all bins together, by a bootstrap over
/// rows, and goes down to zero where a calibrated model would show as much.
/// @param seed  of the bootstrap, which depends on nothing else
DataQuality quality_of(const RowSums& rows, double confidence, std::uint64_t seed);

/// Σ values / Σ over over random vectors: (1/P) Σ where all of `over` are 1. A quarter is added to the interval, for
/// quadratic forms are skewed where few eigenvalues are most of a trace, and some ten of them don't show how much.
Interval ratio_over_samples(std::span<const double> values, std::span<const double> over, double confidence);
Interval mean_over_samples(std::span<const double> values, double confidence);

}  // namespace hesspect
