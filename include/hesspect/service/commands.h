// The commands of the queue: submit, queue, cancel, wait, log. No MPI, and nothing of LibTorch is called.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "hesspect/config/service_options.h"

namespace hesspect {

/// Carries one out. @return the exit code. @throws Error
int run_queue_command(std::string_view command, const QueueConfig& config, const Environment& environment);

}  // namespace hesspect
