// CUDA graphs, behind hesspect/tangent/launch_graph.h.
#pragma once

#include <memory>

#include "hesspect/tangent/launch_graph.h"

namespace hesspect {

std::unique_ptr<LaunchRecorder> make_launch_recorder(int device);

}  // namespace hesspect
