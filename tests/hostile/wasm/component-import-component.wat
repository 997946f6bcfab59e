(component (import "escape" (component)))
