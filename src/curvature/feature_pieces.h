// What features by option and features by file have in common.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "hesspect/curvature/features.h"
#include "hesspect/model/parameter_layout.h"

namespace hesspect {

/// Ascending, none touching the next, none empty.
std::vector<IndexRange> merged(std::vector<IndexRange> ranges);

/// @throws InputError naming the indices that the parameter does not have
void require_indices(const std::string& where, const ParameterEntry& entry, const FeaturePiece& piece);

/// Pieces by name and expression of an option, "feature" or "block". @throws as named_parts
std::vector<Feature> named_pieces(const ParameterLayout& layout, const std::string& option,
                                  const std::vector<std::pair<std::string, std::string>>& patterns);

/// Entries in use, of the flat vector, in any order. @param counts  tables that are not in it are in use as held
std::vector<IndexRange> ranges_in_use(const ParameterLayout& layout, const Feature& feature,
                                      const std::vector<TableCounts>& counts);

/// All its parameters, in the model's own numbers, in any order.
std::vector<IndexRange> model_ranges(const ParameterLayout& layout, const Feature& feature);

/// Of a feature that the user has named: joins pieces of the same kind and parameter, and sets its kind.
void settle_kind(Feature& feature);

}  // namespace hesspect
