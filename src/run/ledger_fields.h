// The ledger's fields, as a checkpoint's run state has them.
#pragma once

#include <array>

#include "hesspect/io/estimate_fields.h"
#include "hesspect/run/ledger.h"

namespace hesspect {

void fields(auto& v, Is<SourceFile> auto& file) { v("path", file.path, "sha256", file.sha256); }

void fields(auto& v, Is<FinishedProbe> auto& probe) {
  v("quadrature", probe.quadrature, "eigenvalues", probe.eigenvalues);
}

void fields(auto& v, Is<DeflationState> auto& deflation) {
  v("rank", deflation.rank, "captured", deflation.captured, "captured_sq", deflation.captured_sq, "layers",
    deflation.layers);
}

void fields(auto& v, Is<Analysis> auto& a) {
  v("quadratures", a.quadratures, "eigenvalues", a.eigenvalues, "samples", a.samples, "captured", a.captured,
    "captured_sq", a.captured_sq, "deflated", a.deflated, "all_found", a.all_found, "products", a.products);
}

void fields(auto& v, Is<RelativeChange> auto& c) {
  v("rho", c.rho, "change", c.change, "largest", c.largest, "along", c.along, "part", c.part, "nodes", c.nodes);
}

void fields(auto& v, Is<LossChanges> auto& c) {
  v("loss", c.loss, "norm", c.norm, "curvature", c.curvature, "at", c.at, "losses", c.losses, "component", c.component,
    "largest_curvature", c.largest_curvature);
}

void fields(auto& v, Is<FinishedBlock> auto& block) {
  v("name", block.name, "analysis", block.analysis, "product_s", block.product_s, "changes", block.changes);
}

void fields(auto& v, Is<InputRow> auto& r) {
  v("row", r.row, "loss", r.loss, "gradient_norm", r.gradient_norm, "largest", r.largest, "largest_error",
    r.largest_error, "magnitude", r.magnitude, "magnitude_error", r.magnitude_error, "converged", r.converged, "step",
    r.step, "change", r.change);
}

void fields(auto& v, Is<InputsProgress> auto& p) {
  v("rows", p.rows, "most_products", p.most_products, "micro_batches", p.micro_batches);
}

void fields(auto& v, Is<LandscapeProgress> auto& p) { v("marks", p.marks, "spans", p.spans, "losses", p.losses); }

void fields(auto& v, Is<PlanBytes> auto& bytes) {
  v("process", bytes.process, "parameters", bytes.parameters, "buffers", bytes.buffers, "data", bytes.data, "vectors",
    bytes.vectors, "basis", bytes.basis, "basis_host", bytes.basis_host, "kept_graphs", bytes.kept_graphs, "transient",
    bytes.transient, "outputs", bytes.outputs, "holes", bytes.holes, "gathered", bytes.gathered, "sums", bytes.sums,
    "crossing", bytes.crossing, "share_host", bytes.share_host, "crossing_host", bytes.crossing_host);
}

inline constexpr std::array kBasisTypes{ElementType::kF64, ElementType::kF32, ElementType::kBF16};
inline constexpr std::array kProductModes{ProductMode::kAuto, ProductMode::kKept, ProductMode::kRebuilt,
                                          ProductMode::kSegments, ProductMode::kAutograd};
inline constexpr std::array kParameterMemories{ParameterMemory::kAuto, ParameterMemory::kReplicated,
                                               ParameterMemory::kSharded, ParameterMemory::kHost};
inline constexpr std::array kBasisMemories{BasisMemory::kDevice, BasisMemory::kHost};

void fields(auto& v, Is<Plan> auto& p) {
  v("groups", p.groups, "data_ranks", p.data_ranks, "lock_step", p.lock_step, "joint", p.joint);
  v.choice("basis_dtype", p.basis_dtype, std::span<const ElementType>(kBasisTypes));
  v.choice("basis_memory", p.basis_memory, std::span<const BasisMemory>(kBasisMemories));
  v.choice("product", p.product, std::span<const ProductMode>(kProductModes));
  v.choice("parameters", p.parameters, std::span<const ParameterMemory>(kParameterMemories));
  v("segments", p.segments, "fetch_ahead", p.fetch_ahead, "span", p.span, "passes", p.passes, "crossing_on_host",
    p.crossing_on_host, "max_basis", p.max_basis, "micro_batch", p.micro_batch, "micro_batches", p.micro_batches,
    "kept_graphs", p.kept_graphs, "graph_budget_bytes", p.graph_budget_bytes, "bytes", p.bytes, "fits", p.fits,
    "products", p.products, "products_in_turn", p.products_in_turn, "product_s", p.product_s, "run_s", p.run_s,
    "block_products", p.block_products, "blocks_s", p.blocks_s, "block_bytes", p.block_bytes, "messages_per_step",
    p.messages_per_step, "message_bytes_per_step", p.message_bytes_per_step);
}

void fields(auto& v, Is<RunLayout> auto& layout) {
  v("plan", layout.plan, "world", layout.world, "threads", layout.threads, "device", layout.device, "row_groups",
    layout.row_groups);
}

void fields(auto& v, Is<LedgerState> auto& s) {
  v("run_id", s.run_id, "config", s.config, "model", s.model, "weights", s.weights, "data", s.data, "layout", s.layout,
    "finished", s.finished, "samples", s.samples, "deflated", s.deflated, "deflation", s.deflation, "trace", s.trace,
    "eigenvalues", s.eigenvalues, "blocks", s.blocks, "inputs", s.inputs, "landscape", s.landscape, "symmetry_error",
    s.symmetry_error, "curvature_scale", s.curvature_scale, "products", s.products, "product_s", s.product_s,
    "communication_s", s.communication_s, "elapsed_s", s.elapsed_s, "starts", s.starts, "overwrite", s.overwrite);
}

}  // namespace hesspect
