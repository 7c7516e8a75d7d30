#include "hesspect/config/run_config.h"

namespace hesspect {

namespace {

/// @param names  of the values, in the order in which the enum has them
template <class Enum, std::size_t count>
std::string name_of(Enum value, const char* const (&names)[count]) {
  const auto i = static_cast<std::size_t>(value);
  return i < count ? names[i] : "unknown";
}

}  // namespace

std::string to_string(Command command) {
  return name_of(command, {"", "analyze", "density", "eigs", "trace", "plan", "inspect", "landscape", "sharpness",
                           "inputs", "features", "report", "compare", "series"});
}

std::string to_string(EigenMethod method) { return name_of(method, {"lanczos", "power"}); }

std::string to_string(TraceMethod method) {
  return name_of(method, {"deflated", "hutchinson", "hutch++", "xtrace", "xnystrace"});
}

std::string to_string(DeviceChoice device) { return name_of(device, {"auto", "cpu", "cuda"}); }

std::string to_string(ReportFormat format) { return name_of(format, {"text", "json", "html"}); }

std::string to_string(SeriesOrder order) { return name_of(order, {"step", "time", "listed"}); }

std::string to_string(Preset preset) { return name_of(preset, {"quick", "standard", "thorough"}); }

}  // namespace hesspect
