// Parts of a model: some entries of the flat vector of its parameters, and how they are chosen by name.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "hesspect/core/entry_numbers.h"
#include "hesspect/core/parameter_grouping.h"

namespace hesspect {

class ParameterLayout;  // hesspect/model/parameter_layout.h

struct IndexRange {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};

/// Entry i of a part's vectors is the i-th entry of its ranges, in order.
struct Part {
  std::string name;
  std::vector<IndexRange> ranges;    // of the flat vector: ascending, none empty, none touching the next
  std::vector<std::string> tensors;  // names of the parameter tensors that it has entries of
  /// Of the model's numbers: its parameters in rows of tables that vectors don't hold, where the matrix is zero.
  std::vector<IndexRange> left_out = {};
  /// Which of the model's parameters the entries are, for random numbers; none: entry i is number i.
  std::shared_ptr<const EntryNumbers> numbers = nullptr;
  std::int64_t size() const;
  /// Eigenvalues of zero beside those of its vectors.
  std::int64_t zeros() const;
};

/// Which of the layout's tensors have entries in these ranges, which ascend and don't overlap.
std::vector<bool> tensors_in(const ParameterLayout& layout, const std::vector<IndexRange>& ranges);

/// Which of the layout's tensors any of the regular expressions (ECMAScript) finds in its name or an alias.
/// @param option  for messages
/// @throws UsageError for one that is no regular expression; InputError for one that finds nothing, with near names
std::vector<bool> matching(const ParameterLayout& layout, const std::string& option,
                           const std::vector<std::string>& patterns);

/// The part of whole tensors. @param chosen  [tensors]
Part part_of(const ParameterLayout& layout, std::string name, const std::vector<bool>& chosen);

/// One part for each name, of the tensors that its expressions find. An expression may end in "@rows=3,10-19" or
/// "@columns=…": of these tensors it has only these indices, in the model's own numbers, of the first or second
/// dimension. A part of which vectors hold no row has no entries, and zeros alone.
/// @throws as matching; UsageError for indices that can't be read, InputError for those that a tensor does not have
std::vector<Part> named_parts(const ParameterLayout& layout,
                              const std::vector<std::pair<std::string, std::string>>& patterns);

/// Parts that together are the whole, each with the name of what it stands for. Of a tied weight its first name counts.
///
/// A module is what stands before the last dot of a tensor's name. kModule groups them by their path's first components
/// up to the first that ends in a digit ("layer1.0.conv1": "layer1"; "transformer.h.0.attn": "transformer.h.0"), and
/// those without such a component as kLayer does.
std::vector<Part> grouped_parts(const ParameterLayout& layout, ParameterGrouping grouping);

/// Parameters of the model that are in no part. @param overlap  set to an entry's tensor that is in two of them; ""
/// where none is
std::int64_t count_outside(const ParameterLayout& layout, const std::vector<Part>& parts, std::string& overlap);

}  // namespace hesspect
