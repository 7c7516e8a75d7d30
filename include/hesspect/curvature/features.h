// Features: parts of the parameters that stand for something in the data, such as an embedding table, some rows of one,
// or the columns of a weight that multiplies an input.
//
// A feature's block of the matrix is of its parameters in use alone: rows of a look-up table that no row of the data
// names have no curvature, and the loss does not depend on them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "hesspect/curvature/parts.h"

namespace hesspect {

/// A parameter tensor, or some indices of its first or second dimension, in the model's own numbers.
struct FeaturePiece {
  enum class What { kWhole, kRows, kColumns };
  std::string parameter;  // the layout's name
  What what = What::kWhole;
  std::vector<IndexRange> indices = {};  // ascending, none touching the next; of kWhole none
};

struct Feature {
  std::string name;
  std::string kind;  // "table", "bucket", "row", or of what the user named: "tensors", "rows", "columns", "group"
  std::vector<FeaturePiece> pieces;
};

/// How often the data look up the rows of a table that is only looked up.
struct TableCounts {
  std::string parameter;
  std::vector<std::int64_t> rows, counts;  // those in use, ascending, and look-ups of each
};

/// The entry of a parameter's counts; nullptr where it has none.
const TableCounts* counts_of(const std::vector<TableCounts>& all, const std::string& parameter);

/// Features by name and expression, as named_parts takes them: "table=emb@rows=3,10-19".
/// @throws as named_parts
std::vector<Feature> named_features(const ParameterLayout& layout,
                                    const std::vector<std::pair<std::string, std::string>>& patterns);

/// Features of a JSON text, docs/features.md has the form. @param where  the file's name, for messages
/// @throws InputError for what is not of that form, unknown parameters, rows, columns and words of a vocabulary, with
///         near names
std::vector<Feature> features_in_json(const ParameterLayout& layout, const std::string& text, const std::string& where);

/// Every table that is only looked up; beside each, its rows in use in so many buckets by how often they are looked up
/// (rows that are looked up as often stay together), and so many single rows, spread evenly from the most frequent to
/// the rarest.
std::vector<Feature> automatic_features(const ParameterLayout& layout, const std::vector<TableCounts>& counts,
                                        std::int64_t buckets, std::int64_t rows);

/// The feature's entries in use, of the flat vector; none where the data use none of it.
Part part_in_use(const ParameterLayout& layout, const Feature& feature, const std::vector<TableCounts>& counts);

/// The feature's parameters, those not in use included; what two pieces share counts once.
std::int64_t parameters_of(const ParameterLayout& layout, const Feature& feature);

}  // namespace hesspect
