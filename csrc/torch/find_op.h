// Ops of this library, called through the dispatcher.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace pygan {

// To be kept in a static: the lookup is by name.
template <class Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace pygan
