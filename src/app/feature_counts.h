// How often the data use a model's features: look-ups of tables' rows, and rows of the data that touch a feature.
#pragma once

#include <limits>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/curvature/features.h"
#include "problem.h"

namespace hesspect {

/// Of the tables that are only looked up, by indices that the data tell. Only the part of the graph runs that makes
/// these. Collective; the same on all ranks.
std::vector<TableCounts> count_look_ups(const Problem& problem, Communicator& world);

struct FeatureFrequency {
  double look_ups = std::numeric_limits<double>::quiet_NaN();  // of its rows; NaN: not of looked-up tables alone
  double rows = std::numeric_limits<double>::quiet_NaN();      // of the data that touch it; NaN: can't be told
};

/// Rows of the data touch a feature where they look up a row of it, or where an input that its columns multiply is not
/// zero. Collective; the same on all ranks.
std::vector<FeatureFrequency> count_features(const Problem& problem, const std::vector<Feature>& features,
                                             const std::vector<TableCounts>& counts, Communicator& world);

}  // namespace hesspect
