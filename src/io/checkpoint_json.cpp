#include "checkpoint_json.h"

#include "checkpoint_names.h"
#include "checkpoint_pieces.h"
#include "estimates_json.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/json_nesting.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/sha256.h"

namespace hesspect::checkpoint {

void fields(auto& v, Is<SourceFile> auto& file) {
  v("path", file.path);
  v("sha256", file.sha256);
}

void fields(auto& v, Is<RunState> auto& s) {
  v("run_id", s.run_id);
  v("config", s.config);
  v("model", s.model);
  v("weights", s.weights);
  v("data", s.data);
  v("plan", s.plan);
  v("finished", s.finished);
  v("samples", s.samples);
  v("deflated", s.deflated);
  v("deflation", s.deflation);
  v("trace", s.trace);
  v("eigenvalues", s.eigenvalues);
  v("counts", s.counts);
  v("symmetry_error", s.symmetry_error);
  v("curvature_scale", s.curvature_scale);
  v("products", s.products);
  v("product_s", s.product_s);
  v("communication_s", s.communication_s);
  v("elapsed_s", s.elapsed_s);
  v("starts", s.starts);
  v("overwrite", s.overwrite);
}

void fields(auto& v, Is<Piece> auto& p) {
  v("set", p.set);
  v("first_row", p.first_row);
  v("rows", p.rows);
  v("rank", p.rank);
  v("file", p.file);
  v("bytes", p.bytes);
  v("sha256", p.sha256);
}

void fields(auto& v, Is<ProbeManifest> auto& m) {
  v("run_id", m.run_id);
  v("probe", m.probe);
  v("steps", m.steps);
  v.bytes("state", m.state);
  v("n", m.n);
  v("ranks", m.ranks);
  v("basis_element_bytes", m.basis_element_bytes);
  v("running_element_bytes", m.running_element_bytes);
  v("pieces", m.pieces);
}

namespace {

using nlohmann::json;

constexpr const char* kMark = "hesspect_checkpoint";
constexpr std::int64_t kVersion = 2;

/// The seal is a JSON text too, so that tools read the file as two values.
std::string seal(std::string_view content) {
  return "\"sha256:" + sha256_bytes(content.data(), content.size()) + "\"\n";
}

std::string sealed(json state, const char* kind) {
  state[kMark] = kVersion;
  state["kind"] = kind;
  const std::string content = state.dump() + "\n";
  return content + seal(content);
}

/// What a sealed file holds.
template <class State>
State opened(const std::filesystem::path& path, const char* kind) {
  const MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  try {
    const std::size_t end = bytes.find('\n');
    if (end == std::string_view::npos || bytes.substr(end + 1) != seal(bytes.substr(0, end + 1)))
      throw InputError("it was cut short or changed (its SHA-256 is wrong)");
    if (json_nests_deeper(bytes.substr(0, end))) throw InputError("it nests deeper than any checkpoint");
    const json content = json::parse(bytes.substr(0, end));
    const Field root(content, kind);
    std::int64_t version = 0;
    root[kMark].read(version);
    if (version != kVersion)
      throw InputError("it has checkpoint layout " + std::to_string(version) + ", and this version reads layout " +
                       std::to_string(kVersion));
    std::string written_kind;
    root["kind"].read(written_kind);
    if (written_kind != kind) throw InputError(std::string("it is not a ") + kind + " state");
    State state;
    Reader::read(root, state);
    if constexpr (std::same_as<State, ProbeManifest>)
      if (const std::string wrong = inconsistency(state); !wrong.empty()) throw InputError(wrong);
    return state;
  } catch (const InputError& error) {
    throw InputError(named(path) + ": " + error.what());
  } catch (const json::exception&) {
    throw InputError(named(path) + ": it is not JSON");
  }
}

}  // namespace

std::string sealed(const RunState& state) { return sealed(Writer::json(state), "run"); }
std::string sealed(const ProbeManifest& manifest) { return sealed(Writer::json(manifest), "probe"); }
RunState read_run_state(const std::filesystem::path& path) { return opened<RunState>(path, "run"); }
ProbeManifest read_manifest(const std::filesystem::path& path) { return opened<ProbeManifest>(path, "probe"); }

}  // namespace hesspect::checkpoint
