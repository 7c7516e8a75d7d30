// What features by option and features by file have in common.
#pragma once

#include <string>
#include <vector>

#include "hesspect/curvature/features.h"
#include "hesspect/model/parameter_layout.h"

namespace hesspect {

/// Ascending, none touching the next, none empty.
std::vector<IndexRange> merged(std::vector<IndexRange> ranges);

/// @throws InputError naming the indices that the parameter does not have
void require_indices(const std::string& where, const ParameterEntry& entry, const FeaturePiece& piece);

/// Of a feature that the user has named: joins pieces of the same kind and parameter, and sets its kind.
void settle_kind(Feature& feature);

}  // namespace hesspect
