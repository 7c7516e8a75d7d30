// What a program's signature says beyond shapes: where the rows lie, and what its outputs are called.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "hesspect/model/program.h"

namespace hesspect {

/// Sets every batch_dim. The rows are the first dimension, but where the inputs' first dimensions are no common symbol
/// and exactly one symbol stands once in the shape of every input: that symbol's dimension, in outputs too.
void find_batch_dims(std::vector<InputSpec>& inputs, std::vector<OutputSpec>& outputs);

/// The outputs' places in what the module returns: keys and positions joined by dots ("loss", "0", "1.logits"; "" for a
/// lone tensor). Empty where the file does not say in a form that is known.
/// @param module  the `graph_module` of the archive. Source: torch/utils/_pytree.py, treespec_dumps
std::vector<std::string> output_paths(const nlohmann::json& module);

}  // namespace hesspect
