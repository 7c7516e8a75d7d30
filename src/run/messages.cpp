#include "messages.h"

#include "ledger_fields.h"

namespace hesspect {

/// Messages that carry nothing but their name.
template <class T>
concept Bare = std::is_empty_v<std::remove_const_t<T>>;
void fields(auto&, Bare auto&) {}

void fields(auto& v, Is<RunLanczos> auto& task) { v("probes", task.probes, "known", task.known); }
void fields(auto& v, Is<RebuildBasis> auto& task) { v("known", task.known); }
void fields(auto& v, Is<SampleTrace> auto& task) { v("probes", task.probes); }
void fields(auto& v, Is<CorrectSamples> auto& task) { v("samples", task.samples); }
void fields(auto& v, Is<AnalyseBlock> auto& task) { v("part", task.part); }

void fields(auto& v, Is<ProbeFinished> auto& report) { v("probe", report.probe); }
void fields(auto& v, Is<Sampled> auto& report) { v("sample", report.sample); }
void fields(auto& v, Is<Corrected> auto& report) { v("samples", report.samples); }
void fields(auto& v, Is<BasisReady> auto& report) { v("deflation", report.deflation); }
void fields(auto& v, Is<TraceEstimated> auto& report) { v("estimate", report.estimate); }
void fields(auto& v, Is<EigenSolved> auto& report) { v("result", report.result); }
void fields(auto& v, Is<BlockAnalysed> auto& report) { v("block", report.block); }
void fields(auto& v, Is<SymmetryMeasured> auto& report) {
  v("error", report.error, "curvature_scale", report.curvature_scale);
}
void fields(auto& v, Is<FileDigest> auto& digest) { v("file", digest.file, "sha256", digest.sha256); }
void fields(auto& v, Is<Hashed> auto& report) { v("digests", report.digests); }
void fields(auto& v, Is<GroupFailed> auto& report) { v("exit_code", report.exit_code, "message", report.message); }
void fields(auto& v, Is<Said> auto& report) { v("text", report.text, "warning", report.warning); }

void fields(auto& v, Is<Tally> auto& tally) {
  v("products", tally.products, "product_s", tally.product_s, "communication_s", tally.communication_s,
    "block_products", tally.block_products);
}
void fields(auto& v, Is<Message> auto& message) {
  v("group", message.group, "tally", message.tally, "report", message.report);
}
void fields(auto& v, Is<Reply> auto& reply) { v("stop", reply.stop, "task", reply.task); }

std::string to_text(const Message& message) { return FieldWriter::text(message); }
std::string to_text(const Reply& reply) { return FieldWriter::text(reply); }
Message message_from(const std::string& text) { return FieldReader::from<Message>(text, "message"); }
Reply reply_from(const std::string& text) { return FieldReader::from<Reply>(text, "reply"); }

}  // namespace hesspect
