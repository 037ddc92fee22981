import org.jetbrains.kotlin.gradle.dsl.JvmTarget

// Plain JVM Kotlin: the engine and the interfaces that a runtime fills.
plugins {
    alias(libs.plugins.kotlin.jvm)
}

java {
    sourceCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
    targetCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
}

kotlin {
    explicitApi()
    compilerOptions {
        jvmTarget.set(JvmTarget.fromTarget(libs.versions.jvmTarget.get()))
        allWarningsAsErrors.set(true)
    }
}

dependencies {
    api(libs.bundles.engine)
    testImplementation(libs.bundles.test)
}
