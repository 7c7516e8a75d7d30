#include "one_run.h"

#include <cstdint>

#include "hesspect/comm/containment.h"
#include "hesspect/comm/end_job.h"
#include "hesspect/comm/failure.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/host.h"
#include "hesspect/core/log.h"
#include "hesspect/core/memory.h"
#include "hesspect/io/fields.h"

namespace hesspect {
namespace {

/// From the first failure on. The others may be in a product that takes long.
constexpr double kMeetRanksAtMost_s = 600;

/// How the run has ended on one rank.
struct RankEnd {
  std::int64_t exit_code = 0;
  bool has_failed = false, is_first = false;  // not because another one has
  std::string line;
  std::int64_t resident_bytes = 0;
};

void fields(auto& v, Is<RankEnd> auto& end) {
  v("exit_code", end.exit_code, "has_failed", end.has_failed, "is_first", end.is_first, "line", end.line,
    "resident_bytes", end.resident_bytes);
}

RankEnd carry_out(Communicator& world, const std::function<int(Communicator&)>& run) {
  RankEnd end;
  try {
    end.exit_code = run(world);
  } catch (const PeerFailed& error) {
    end = {static_cast<std::int64_t>(error.exit_code()), true, false, error.what(), 0};
  } catch (...) {
    const Failure failure = current_failure();
    end = {failure.exit_code, true, failure.message != PeerFailed().what(), failure.message, 0};
  }
  return end;
}

}  // namespace

RunEnd run_contained(Communicator& host, const std::function<int(Communicator&)>& run) {
  Containment contained(host);
  RankEnd mine = carry_out(contained.world(), run);
  if (mine.has_failed) contained.fail(mine.is_first);
  if (!contained.meet(mine.has_failed ? kMeetRanksAtMost_s : 0)) {
    log_error("rank " + std::to_string(host.rank()) + " on " + host_name() + ": " + mine.line +
              "; other ranks did not come out of the run, so that the service ends");
    abort_job(static_cast<int>(mine.exit_code));
  }
  mine.resident_bytes = resident_memory_bytes();
  RunEnd all{static_cast<int>(mine.exit_code), mine.line, {}};
  bool is_decided = false;
  for (const std::string& text : host.all_gather_bytes(FieldWriter::text(mine))) {
    const auto end = FieldReader::from<RankEnd>(text, "the end of a rank's run");
    all.resident_bytes.push_back(end.resident_bytes);
    if (!end.has_failed || is_decided) continue;
    all.exit_code = static_cast<int>(end.exit_code);
    all.line = end.line;
    is_decided = end.is_first;
  }
  return all;
}

}  // namespace hesspect
