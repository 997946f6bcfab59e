(component (import "escape" (func)))
