// An op of this library by its name, to be called through torch's dispatcher.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace fastinterp {

template <typename Signature>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace fastinterp
