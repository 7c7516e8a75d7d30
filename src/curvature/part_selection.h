// How the entries of a part are named: an expression, and indices along a dimension of what it finds.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "hesspect/curvature/parts.h"

namespace hesspect {

/// "wte@rows=3,10-19": the tensors that an expression finds, and which indices of their first or second dimension.
struct Selection {
  std::string pattern;
  std::size_t dimension = 0;
  std::vector<IndexRange> indices;  // none: all
};

inline constexpr const char* kDimensionNames[] = {"rows", "columns"};

/// @param option  for messages: "--block NAME"
/// @throws UsageError for indices that can't be read
Selection selection_from(const std::string& option, const std::string& text);

/// The part of ranges in any order, which may overlap.
Part assembled(const ParameterLayout& layout, std::string name, std::vector<IndexRange> ranges);

/// The same, and what of the model's numbers in `model` [ranges in any order] vectors don't hold.
Part assembled(const ParameterLayout& layout, std::string name, std::vector<IndexRange> ranges,
               std::vector<IndexRange> model);

}  // namespace hesspect
