#include "checkpoint_text.h"

#include "checkpoint_names.h"
#include "checkpoint_pieces.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/sha256.h"

namespace hesspect {

void fields(auto& v, Is<Piece> auto& p) {
  v("set", p.set, "first_row", p.first_row, "rows", p.rows, "rank", p.rank, "file", p.file, "bytes", p.bytes, "sha256",
    p.sha256);
}

void fields(auto& v, Is<ProbeManifest> auto& m) {
  v("run_id", m.run_id, "probe", m.probe, "steps", m.steps);
  v.bytes("state", m.state);
  v("n", m.n, "ranks", m.ranks, "basis_element_bytes", m.basis_element_bytes, "running_element_bytes",
    m.running_element_bytes, "cut", m.cut, "pieces", m.pieces);
}

std::string to_text(const Piece& piece) { return FieldWriter::text(piece); }
Piece piece_from(const std::string& text) { return FieldReader::from<Piece>(text, "piece"); }

namespace checkpoint {
namespace {

constexpr const char* kProbeKind = "probe";
constexpr std::int64_t kVersion = 4;

/// What every state says of itself.
struct Mark {
  std::int64_t layout = kVersion;
  std::string kind;
};

void fields(auto& v, Is<Mark> auto& mark) { v("hesspect_checkpoint", mark.layout, "kind", mark.kind); }

/// The seal is a JSON text too, so that tools read the file as two values.
std::string seal(std::string_view content) {
  return "\"sha256:" + sha256_bytes(content.data(), content.size()) + "\"\n";
}

}  // namespace

std::string sealed(const std::string& state, const char* kind) {
  std::string mark = FieldWriter::text(Mark{kVersion, kind});
  mark.back() = ',';  // for the closing brace: the state's own fields follow
  const std::string content = mark + state.substr(1) + "\n";
  return content + seal(content);
}

std::string sealed(const ProbeManifest& manifest) { return sealed(FieldWriter::text(manifest), kProbeKind); }

FieldReader open_sealed(const std::filesystem::path& path, const char* kind) {
  const MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  const std::size_t end = bytes.find('\n');
  if (end == std::string_view::npos || bytes.substr(end + 1) != seal(bytes.substr(0, end + 1)))
    throw InputError(named(path) + ": it was cut short or changed (its SHA-256 is wrong)");
  FieldReader reader(std::string(bytes.substr(0, end)), named(path) + ": " + kind);
  const Mark mark = reader.as<Mark>();
  if (mark.layout != kVersion)
    throw InputError(named(path) + ": it has checkpoint layout " + std::to_string(mark.layout) +
                     ", and this version reads layout " + std::to_string(kVersion));
  if (mark.kind != kind) throw InputError(named(path) + ": it is not a " + kind + " state");
  return reader;
}

ProbeManifest read_manifest(const std::filesystem::path& path) {
  auto manifest = open_sealed(path, kProbeKind).as<ProbeManifest>();
  if (const std::string wrong = inconsistency(manifest); !wrong.empty()) throw InputError(named(path) + ": " + wrong);
  return manifest;
}

}  // namespace checkpoint
}  // namespace hesspect
