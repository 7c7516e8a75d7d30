// Features from a finished run: ranked, with the loss's changes estimated and what goes with what; and a text of them.
#pragma once

#include <string>
#include <vector>

#include "hesspect/io/result_file.h"
#include "hesspect/run/goals.h"
#include "hesspect/run/ledger.h"

namespace hesspect {

/// Of goals that ask for features. @param diagnostics  with loss and rows of the data
FeaturesResult features_of(const Goals& goals, const Ledger& ledger, const Diagnostics& diagnostics);

/// Sets the correlations over the features that are not nested.
void correlate(FeaturesResult& features);

/// What is to be heeded. @param most_products  with each feature
std::vector<std::string> feature_warnings(const FeaturesResult& features, std::int64_t most_products);

/// A ranked table of the features, its head first.
std::vector<std::string> feature_table(const FeaturesResult& features);

/// Lines for people, as findings() has them of other results: that table, and the correlations.
std::vector<std::string> feature_lines(const FeaturesResult& features);

}  // namespace hesspect
