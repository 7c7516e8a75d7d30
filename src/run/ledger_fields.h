// The ledger's fields, as a checkpoint's run state has them.
#pragma once

#include <array>

#include "hesspect/io/estimate_fields.h"
#include "hesspect/run/ledger.h"

namespace hesspect {

void fields(auto& v, Is<SourceFile> auto& file) {
  v("path", file.path);
  v("sha256", file.sha256);
}

void fields(auto& v, Is<FinishedProbe> auto& probe) {
  v("quadrature", probe.quadrature);
  v("eigenvalues", probe.eigenvalues);
}

void fields(auto& v, Is<DeflationState> auto& deflation) {
  v("rank", deflation.rank);
  v("captured", deflation.captured);
  v("layers", deflation.layers);
}

void fields(auto& v, Is<PlanBytes> auto& bytes) {
  v("process", bytes.process);
  v("parameters", bytes.parameters);
  v("buffers", bytes.buffers);
  v("data", bytes.data);
  v("vectors", bytes.vectors);
  v("basis", bytes.basis);
  v("basis_host", bytes.basis_host);
  v("kept_graphs", bytes.kept_graphs);
  v("transient", bytes.transient);
  v("outputs", bytes.outputs);
  v("holes", bytes.holes);
}

inline constexpr std::array kBasisTypes{ElementType::kF64, ElementType::kF32, ElementType::kBF16};
inline constexpr std::array kBasisMemories{BasisMemory::kDevice, BasisMemory::kHost};

void fields(auto& v, Is<Plan> auto& p) {
  v("groups", p.groups);
  v("data_ranks", p.data_ranks);
  v("lock_step", p.lock_step);
  v("joint", p.joint);
  v.choice("basis_dtype", p.basis_dtype, std::span<const ElementType>(kBasisTypes));
  v.choice("basis_memory", p.basis_memory, std::span<const BasisMemory>(kBasisMemories));
  v("max_basis", p.max_basis);
  v("micro_batch", p.micro_batch);
  v("micro_batches", p.micro_batches);
  v("kept_graphs", p.kept_graphs);
  v("graph_budget_bytes", p.graph_budget_bytes);
  v("bytes", p.bytes);
  v("fits", p.fits);
  v("products", p.products);
  v("products_in_turn", p.products_in_turn);
  v("product_s", p.product_s);
  v("run_s", p.run_s);
  v("messages_per_step", p.messages_per_step);
  v("message_bytes_per_step", p.message_bytes_per_step);
}

void fields(auto& v, Is<RunLayout> auto& layout) {
  v("plan", layout.plan);
  v("world", layout.world);
  v("threads", layout.threads);
  v("device", layout.device);
}

void fields(auto& v, Is<LedgerState> auto& s) {
  v("run_id", s.run_id);
  v("config", s.config);
  v("model", s.model);
  v("weights", s.weights);
  v("data", s.data);
  v("layout", s.layout);
  v("finished", s.finished);
  v("samples", s.samples);
  v("deflated", s.deflated);
  v("deflation", s.deflation);
  v("trace", s.trace);
  v("eigenvalues", s.eigenvalues);
  v("symmetry_error", s.symmetry_error);
  v("curvature_scale", s.curvature_scale);
  v("products", s.products);
  v("product_s", s.product_s);
  v("communication_s", s.communication_s);
  v("elapsed_s", s.elapsed_s);
  v("starts", s.starts);
  v("overwrite", s.overwrite);
}

}  // namespace hesspect
