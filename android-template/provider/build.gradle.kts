import org.jetbrains.kotlin.gradle.dsl.JvmTarget

// Plain JVM Kotlin: wires a runtime into the engine, the one class that apps use.
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
    api(project(":engine"))
    implementation(project(":runtime"))
    implementation(libs.bundles.provider)
    testImplementation(libs.bundles.test)
}
