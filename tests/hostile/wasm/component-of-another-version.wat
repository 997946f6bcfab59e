(component
  (import "wasi:cli/stdout@0.3.0" (instance))
  (import "wasi:http/outgoing-handler@0.2.0" (instance)))
