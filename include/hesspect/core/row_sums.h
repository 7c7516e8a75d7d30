// What the terms of a loss add up to on each row of the data: what figures over rows are made of.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace hesspect {

/// Of the expected calibration error: of equal width.
inline constexpr std::int64_t kConfidenceBins = 15;

/// The bin that a confidence of (0, 1] is in: ((m − 1)/bins, m/bins].
inline std::int64_t confidence_bin(double confidence) {
  const auto bin = static_cast<std::int64_t>(std::ceil(confidence * static_cast<double>(kConfidenceBins))) - 1;
  return std::clamp<std::int64_t>(bin, 0, kConfidenceBins - 1);
}

struct RowSums {
  std::vector<double> loss, loss_count;  // [rows] what the mean loss is the ratio of; count 0: a row without terms
  std::vector<double> terms, correct, nll, brier;  // [rows], where something is classified
  /// Terms by row and bin of their confidence: entries in the order of rows.
  std::vector<std::int64_t> bin_row, bin;
  std::vector<double> bin_terms, bin_correct, bin_confidence;  // the last: sum of confidences

  /// Rows of another share behind these.
  void append(const RowSums& other) {
    const auto rows = static_cast<std::int64_t>(loss.size());
    for (const auto member : {&RowSums::loss, &RowSums::loss_count, &RowSums::terms, &RowSums::correct, &RowSums::nll,
                              &RowSums::brier, &RowSums::bin_terms, &RowSums::bin_correct, &RowSums::bin_confidence})
      (this->*member).insert((this->*member).end(), (other.*member).begin(), (other.*member).end());
    bin.insert(bin.end(), other.bin.begin(), other.bin.end());
    for (const std::int64_t row : other.bin_row) bin_row.push_back(rows + row);
  }
};

}  // namespace hesspect
