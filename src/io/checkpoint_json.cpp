#include "checkpoint_json.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "checkpoint_names.h"
#include "checkpoint_pieces.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/hex.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/sha256.h"

namespace hesspect::checkpoint {
namespace {

using nlohmann::json;

constexpr const char* kMark = "hesspect_checkpoint";
constexpr std::int64_t kVersion = 1;

// --- values ---

json hex(const std::string& bytes) { return to_hex(std::as_bytes(std::span(bytes))); }

json text(const std::string& value) {
  json as_text = value;
  try {
    (void)as_text.dump();
    return as_text;
  } catch (const json::exception&) {  // not UTF-8
    return {{"hex", hex(value)}};
  }
}

json real(double value) {
  if (std::isfinite(value)) return value;
  const auto bits = std::bit_cast<std::array<std::byte, sizeof value>>(value);
  return to_hex(bits);
}

json reals(const std::vector<double>& values) {
  json all = json::array();
  for (const double value : values) all.push_back(real(value));
  return all;
}

/// A value read back, with its name for messages.
class Field {
 public:
  Field(const json& value, std::string name) : value_(value), name_(std::move(name)) {}

  Field operator[](const char* key) const {
    if (!value_.is_object() || !value_.contains(key)) throw InputError(name_ + "." + key + " is missing");
    return {value_.at(key), name_ + "." + key};
  }
  bool is_null() const { return value_.is_null(); }
  std::vector<Field> list() const {
    if (!value_.is_array()) fail("a list");
    std::vector<Field> all;
    for (std::size_t i = 0; i < value_.size(); ++i) all.emplace_back(value_[i], name_ + "[" + std::to_string(i) + "]");
    return all;
  }
  std::int64_t integer() const {
    if (!value_.is_number_integer()) fail("an integer");
    return value_.get<std::int64_t>();
  }
  bool flag() const {
    if (!value_.is_boolean()) fail("true or false");
    return value_.get<bool>();
  }
  double real() const {
    if (value_.is_number()) return value_.get<double>();
    const std::string bytes = hex();
    double value = 0;
    if (bytes.size() != sizeof value) fail("a number");
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  std::vector<double> reals() const {
    std::vector<double> all;
    for (const Field& field : list()) all.push_back(field.real());
    return all;
  }
  std::string text() const {
    if (value_.is_object()) return (*this)["hex"].hex();
    if (!value_.is_string()) fail("a text");
    return value_.get<std::string>();
  }
  std::string hex() const {
    if (!value_.is_string()) fail("hexadecimal digits");
    const auto bytes = from_hex(value_.get_ref<const std::string&>());
    if (!bytes) fail("hexadecimal digits");
    return *bytes;
  }

 private:
  [[noreturn]] void fail(const char* expected) const { throw InputError(name_ + " is not " + expected); }
  const json& value_;
  std::string name_;
};

// --- parts of a run's state ---

json to_json(const std::vector<SourceFile>& files) {
  json all = json::array();
  for (const auto& file : files) all.push_back({{"path", text(file.path)}, {"sha256", text(file.sha256)}});
  return all;
}

std::vector<SourceFile> sources(const Field& field) {
  std::vector<SourceFile> all;
  for (const Field& file : field.list()) all.push_back({file["path"].text(), file["sha256"].text()});
  return all;
}

json to_json(const ProbeQuadrature& q) {
  return {{"probe", q.probe},
          {"alpha", reals(q.alpha)},
          {"beta", reals(q.beta)},
          {"beta_last", real(q.beta_last)},
          {"ritz", reals(q.ritz)},
          {"weight", reals(q.weight)},
          {"norm_sq", real(q.norm_sq)},
          {"breakdown", q.breakdown},
          {"orthogonality_loss", real(q.orthogonality_loss)}};
}

ProbeQuadrature quadrature(const Field& f) {
  ProbeQuadrature q;
  q.probe = f["probe"].integer();
  q.alpha = f["alpha"].reals();
  q.beta = f["beta"].reals();
  q.beta_last = f["beta_last"].real();
  q.ritz = f["ritz"].reals();
  q.weight = f["weight"].reals();
  q.norm_sq = f["norm_sq"].real();
  q.breakdown = f["breakdown"].flag();
  q.orthogonality_loss = f["orthogonality_loss"].real();
  return q;
}

json to_json(const std::vector<EigenEstimate>& estimates) {
  json all = json::array();
  for (const auto& e : estimates)
    all.push_back({{"value", real(e.value)}, {"residual", real(e.residual)}, {"converged", e.converged}});
  return all;
}

std::vector<EigenEstimate> estimates(const Field& field) {
  std::vector<EigenEstimate> all;
  for (const Field& e : field.list()) all.push_back({e["value"].real(), e["residual"].real(), e["converged"].flag()});
  return all;
}

json to_json(const EigenResult& e) {
  return {{"top", to_json(e.top)},
          {"bottom", to_json(e.bottom)},
          {"steps", e.steps},
          {"converged", e.converged},
          {"exhausted", e.exhausted}};
}

EigenResult eigenvalues(const Field& f) {
  EigenResult e;
  e.top = estimates(f["top"]);
  e.bottom = estimates(f["bottom"]);
  e.steps = f["steps"].integer();
  e.converged = f["converged"].flag();
  e.exhausted = f["exhausted"].flag();
  return e;
}

json to_json(const FinishedProbe& probe) {
  return {{"quadrature", to_json(probe.quadrature)},
          {"eigenvalues", probe.eigenvalues ? to_json(*probe.eigenvalues) : json()}};
}

FinishedProbe finished_probe(const Field& f) {
  FinishedProbe probe{quadrature(f["quadrature"]), std::nullopt};
  if (const Field e = f["eigenvalues"]; !e.is_null()) probe.eigenvalues = eigenvalues(e);
  return probe;
}

RunState run_state(const Field& f) {
  RunState s;
  s.run_id = f["run_id"].text();
  s.config = f["config"].text();
  s.model = sources(f["model"]);
  s.weights = sources(f["weights"]);
  s.data = sources(f["data"]);
  s.plan = f["plan"].text();
  for (const Field& probe : f["finished"].list()) s.finished.push_back(finished_probe(probe));
  s.symmetry_error = f["symmetry_error"].real();
  s.curvature_scale = f["curvature_scale"].real();
  s.products = f["products"].integer();
  s.product_s = f["product_s"].real();
  s.communication_s = f["communication_s"].real();
  s.elapsed_s = f["elapsed_s"].real();
  s.starts = f["starts"].integer();
  s.overwrite = f["overwrite"].flag();
  return s;
}

int small_integer(const Field& field) {
  const std::int64_t value = field.integer();
  if (value < 0 || value > std::numeric_limits<int>::max()) throw InputError("a number of ranks is out of range");
  return static_cast<int>(value);
}

ProbeManifest manifest(const Field& f) {
  ProbeManifest m;
  m.run_id = f["run_id"].text();
  m.probe = f["probe"].integer();
  m.steps = f["steps"].integer();
  m.state = f["state"].hex();
  m.n = f["n"].integer();
  m.ranks = small_integer(f["ranks"]);
  m.basis_element_bytes = f["basis_element_bytes"].integer();
  m.running_element_bytes = f["running_element_bytes"].integer();
  for (const Field& p : f["pieces"].list())
    m.pieces.push_back({p["set"].text(), p["first_row"].integer(), p["rows"].integer(), small_integer(p["rank"]),
                        p["file"].text(), p["bytes"].integer(), p["sha256"].text()});
  if (const std::string wrong = inconsistency(m); !wrong.empty()) throw InputError(wrong);
  return m;
}

// --- files ---

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

/// What a sealed file holds, read by `parse`.
template <class Parse>
auto opened(const std::filesystem::path& path, const char* kind, Parse parse) {
  const MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  try {
    const std::size_t end = bytes.find('\n');
    if (end == std::string_view::npos || bytes.substr(end + 1) != seal(bytes.substr(0, end + 1)))
      throw InputError("it was cut short or changed (its SHA-256 is wrong)");
    const json state = json::parse(bytes.substr(0, end));
    const Field root(state, kind);
    if (const std::int64_t version = root[kMark].integer(); version != kVersion)
      throw InputError("it has checkpoint layout " + std::to_string(version) + ", and this version reads layout " +
                       std::to_string(kVersion));
    if (root["kind"].text() != kind) throw InputError(std::string("it is not a ") + kind + " state");
    return parse(root);
  } catch (const InputError& error) {
    throw InputError(named(path) + ": " + error.what());
  } catch (const json::exception&) {
    throw InputError(named(path) + ": it is not JSON");
  }
}

}  // namespace

std::string sealed(const RunState& s) {
  json finished = json::array();
  for (const auto& probe : s.finished) finished.push_back(to_json(probe));
  return sealed(json{{"run_id", text(s.run_id)},
                     {"config", text(s.config)},
                     {"model", to_json(s.model)},
                     {"weights", to_json(s.weights)},
                     {"data", to_json(s.data)},
                     {"plan", text(s.plan)},
                     {"finished", finished},
                     {"symmetry_error", real(s.symmetry_error)},
                     {"curvature_scale", real(s.curvature_scale)},
                     {"products", s.products},
                     {"product_s", real(s.product_s)},
                     {"communication_s", real(s.communication_s)},
                     {"elapsed_s", real(s.elapsed_s)},
                     {"starts", s.starts},
                     {"overwrite", s.overwrite}},
                "run");
}

std::string sealed(const ProbeManifest& m) {
  json pieces = json::array();
  for (const auto& p : m.pieces)
    pieces.push_back({{"set", p.set},
                      {"first_row", p.first_row},
                      {"rows", p.rows},
                      {"rank", p.rank},
                      {"file", p.file},
                      {"bytes", p.bytes},
                      {"sha256", p.sha256}});
  return sealed(json{{"run_id", text(m.run_id)},
                     {"probe", m.probe},
                     {"steps", m.steps},
                     {"state", hex(m.state)},
                     {"n", m.n},
                     {"ranks", m.ranks},
                     {"basis_element_bytes", m.basis_element_bytes},
                     {"running_element_bytes", m.running_element_bytes},
                     {"pieces", pieces}},
                "probe");
}

RunState read_run_state(const std::filesystem::path& path) { return opened(path, "run", run_state); }
ProbeManifest read_manifest(const std::filesystem::path& path) { return opened(path, "probe", manifest); }

}  // namespace hesspect::checkpoint

namespace hesspect {

std::string to_text(const FinishedProbe& probe) { return checkpoint::to_json(probe).dump(); }

FinishedProbe finished_probe_from(const std::string& text) {
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    return checkpoint::finished_probe(checkpoint::Field(json, "probe"));
  } catch (const nlohmann::json::exception&) {
    throw InputError("a finished probe's text is not JSON");
  }
}

}  // namespace hesspect
