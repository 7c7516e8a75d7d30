#include "linear_layer.h"

#include <ATen/ATen.h>

#include <string>

#include "stacked.h"

namespace hesspect {
namespace {

LinearLayer::Places places_of(const Instruction& instruction) {
  const std::string& name = instruction.op->schema().name();
  if (name == "aten::linear") return {0, 1, 2, false};
  if (name == "aten::addmm") return {1, 2, 0, true};
  return {0, 1, -1, true};  // mm, matmul
}

}  // namespace

LinearLayer::LinearLayer(const Arguments& arguments)
    : places(places_of(arguments.instruction)),
      shape(arguments.tensor(places.x).sizes().vec()),
      x(arguments.tensor(places.x).reshape({-1, shape.back()})),
      w(places.transposed ? arguments.tensor(places.w).t() : arguments.tensor(places.w)) {
  if (places.bias >= 0) bias = arguments.optional_tensor(static_cast<std::size_t>(places.bias));
}

void LinearLayer::take(const Tangents& x_dots) {
  count = x_dots.count();
  if (const at::Tensor t = x_dots.at(places.x); t.defined()) x_dot = reshaped(t, {count, x.size(0), x.size(1)});
  if (const at::Tensor t = x_dots.at(places.w); t.defined()) w_dot = places.transposed ? turned(t) : t;
  if (places.bias >= 0) bias_dot = x_dots.at(static_cast<std::size_t>(places.bias));
}

LayerSums::LayerSums(const LinearLayer& the_layer, Sink* the_sink, std::int64_t count)
    : layer(the_layer), sink(the_sink) {
  if (sink == nullptr) return;
  const LinearLayer::Places& places = layer.places;
  if (sink->wants(places.x)) x = at::empty({count, layer.x.size(0), layer.x.size(1)}, layer.x.options());
  if (sink->wants(places.w)) {
    w = sink->open_or_zeros(places.w, places.transposed ? layer.w.t() : layer.w);
    if (places.transposed) w = turned(w);
  }
  if (layer.bias.defined() && sink->wants(static_cast<std::size_t>(places.bias)))
    bias = sink->open_or_zeros(static_cast<std::size_t>(places.bias), layer.bias);
}

void LayerSums::give() const {
  if (!x.defined()) return;
  sink->add(layer.places.x, reshaped(x, with_count(x.size(0), layer.shape)));
}

}  // namespace hesspect
