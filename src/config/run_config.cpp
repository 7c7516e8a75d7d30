#include "hesspect/config/run_config.h"

namespace hesspect {

std::string to_string(Command command) {
  switch (command) {
    case Command::kNone: return "";
    case Command::kAnalyze: return "analyze";
    case Command::kDensity: return "density";
    case Command::kEigs: return "eigs";
    case Command::kTrace: return "trace";
    case Command::kPlan: return "plan";
    case Command::kInspect: return "inspect";
  }
  return "unknown";
}

std::string to_string(Curvature) { return "hessian"; }

std::string to_string(EigenMethod method) { return method == EigenMethod::kPower ? "power" : "lanczos"; }

std::string to_string(TraceMethod method) {
  switch (method) {
    case TraceMethod::kDeflated: return "deflated";
    case TraceMethod::kHutchinson: return "hutchinson";
    case TraceMethod::kHutchPlusPlus: return "hutch++";
    case TraceMethod::kXTrace: return "xtrace";
  }
  return "unknown";
}

std::string to_string(DeviceChoice device) {
  switch (device) {
    case DeviceChoice::kAuto: return "auto";
    case DeviceChoice::kCpu: return "cpu";
    case DeviceChoice::kCuda: return "cuda";
  }
  return "unknown";
}

}  // namespace hesspect
