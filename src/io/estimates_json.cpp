#include "estimates_json.h"

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

template <class T>
std::string text_of(const T& value) {
  return checkpoint::Writer::json(value).dump();
}

template <class T>
T from_text(const std::string& text, const std::string& name) {
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    T value;
    checkpoint::Reader::read(checkpoint::Field(json, name), value);
    return value;
  } catch (const nlohmann::json::exception&) {
    throw InputError("the text of a " + name + " is not JSON");
  }
}

}  // namespace

std::string to_text(const FinishedProbe& probe) { return text_of(probe); }
std::string to_text(const TraceSample& sample) { return text_of(sample); }
std::string to_text(const DeflatedSample& sample) { return text_of(sample); }
std::string to_text(const DeflationState& deflation) { return text_of(deflation); }
std::string to_text(const TraceEstimate& trace) { return text_of(trace); }
std::string to_text(const EigenResult& eigenvalues) { return text_of(eigenvalues); }

FinishedProbe finished_probe_from(const std::string& text) { return from_text<FinishedProbe>(text, "finished probe"); }
TraceSample trace_sample_from(const std::string& text) { return from_text<TraceSample>(text, "trace sample"); }
DeflatedSample deflated_sample_from(const std::string& text) {
  return from_text<DeflatedSample>(text, "deflated sample");
}
DeflationState deflation_state_from(const std::string& text) { return from_text<DeflationState>(text, "deflation"); }
TraceEstimate trace_estimate_from(const std::string& text) { return from_text<TraceEstimate>(text, "trace estimate"); }
EigenResult eigen_result_from(const std::string& text) { return from_text<EigenResult>(text, "result of eigenvalues"); }

}  // namespace hesspect
