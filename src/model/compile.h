// From the graph's JSON to instructions whose ops, arguments and constants are resolved once, at load time.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "hesspect/model/graph.h"
#include "rewrites.h"
#include "symbolic.h"

namespace hesspect {

Origin origin_of(const nlohmann::json& node);

/// What compiling needs to know of the run and of the file.
struct CompileOptions {
  std::function<at::ScalarType(at::ScalarType)> map_dtype;  // a dtype in the program -> in the run
  at::Device device = at::kCPU;
  std::string where;  // start of messages
};

/// @param external  names of inputs that the program must not write to: parameters, buffers, constants, user inputs
/// @throws InputError at the first node that cannot be run: unknown or higher-order op, mutation, train mode,
/// randomness
Graph compile_graph(const nlohmann::json& graph, const std::set<std::string>& external, const CompileOptions& options);

/// The line of the user's model in a node's stack trace: the last frame outside LibTorch's own Python files.
std::string user_source_line(const std::string& stack_trace);

}  // namespace hesspect
