// Which parameters of a program without weights are one.
//
// A program exported on the meta device or with fake tensors holds names and shapes, but no data, and so not which
// names are tied. Its graph tells a part: of the names of one weight it uses one, so a name that it does not use is
// tied to another, or of no use to the model. The checkpoint tells the rest: tied names share their memory in a file of
// torch.save, are left out of a safetensors file, or hold the same values.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "program_impl.h"

namespace hesspect {

/// Names of values that the graph's nodes or outputs take.
std::set<std::string> names_used(const nlohmann::json& graph);

/// Owners (see Program::Impl) before a checkpoint is known: a name without use is taken to be tied to the first that is
/// used and has its shape, unless more of its module is without use.
std::vector<std::size_t> likely_owners(const std::vector<Program::Impl::StoredParameter>& stored);

}  // namespace hesspect
