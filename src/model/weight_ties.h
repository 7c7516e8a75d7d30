// Which parameters of a program without weights are one.
//
// A program exported on the meta device or with fake tensors holds names and shapes, but no data, and so not which
// names are tied. Its graph shows a part: of the names of one weight it uses one, so a name that it does not use is
// tied to another, or of no use to the model. The state dict shows the rest: tied names share their memory in a file of
// torch.save, are left out of a safetensors file, or hold the same values.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "program_impl.h"
#include "state_dict_names.h"

namespace hesspect {

/// Names of values that the graph's nodes or outputs take.
std::set<std::string> names_used(const nlohmann::json& graph);

/// Owners (see Program::Impl) before a state dict is known: a name without use is taken to be tied to the first that is
/// used and has its shape, unless more of its module is without use.
std::vector<std::size_t> likely_owners(const std::vector<Program::Impl::StoredParameter>& stored);

/// Which parameters are one, and what could not be decided for sure.
struct Ties {
  std::vector<std::size_t> owners;
  std::vector<std::string> warnings;  // a sentence each
};

/// By the state dicts that are laid over the parameters, later ones over earlier.
/// @throws InputError where names that may be one stand in different files only
Ties settle_ties(const std::vector<Program::Impl::StoredParameter>& stored, const std::vector<NamedTensors>& sources);

/// Frozen weights that are tied: a name that the graph uses and no state dict has gets the values of the one name of
/// its shape that the graph does not use and a state dict has, where these are the only ones of their shape.
/// @return a sentence for each
std::vector<std::string> tie_frozen(Program::Impl& impl, const std::vector<NamedTensors>& sources);

}  // namespace hesspect
